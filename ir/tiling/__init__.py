"""The one lowering from tensors to tiles: a group of computes and a schedule give a template of tile IR (`templates.template`).

It lives with the language because cost models read templates as code generators do.
"""
