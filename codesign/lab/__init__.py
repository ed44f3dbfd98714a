"""The lab: studies of policies over kernels, machines and measured spaces, kept in a database, scored and drawn."""
