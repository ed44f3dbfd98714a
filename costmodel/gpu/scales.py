"""How parameters that are no ratios go from one GPU to another: by clocks, latencies, rates and power."""

from __future__ import annotations

from collections.abc import Iterable

from codesign.costmodel.gpu.geometry import full_clock, wide_of
from codesign.costmodel.machine import Machine, as_shipped


def unchecked_trips(machine: Machine, calibrated: Iterable[Machine]) -> str:
    """In words, where an SM multiplies more or less in a clock than those to whose trips the rule for them was held."""
    held = [full_clock(each) for each in calibrated if not wide_of(each)]
    if 0.99 * min(held) <= (each := full_clock(machine)) <= 1.01 * max(held):
        return ""
    return (
        f"clocks of a loop trip go by what an SM multiplies in one, which was held to times for {min(held):,.0f} to {max(held):,.0f} operations, "
        f"not for {each:,.0f}"
    )


def scales(donor: Machine, machine: Machine, joules: float) -> dict[str, float]:
    """Factors of the parameters that are not ratios, from one machine, to another; `joules`: an operation's of the tensor unit of the first."""
    clock = donor.need(donor.unit("vector").clock_hz, "units.vector.clock_hz") / machine.need(
        machine.unit("vector").clock_hz, "units.vector.clock_hz"
    )
    latency = donor.need(donor.level("dram").latency_seconds, "levels.dram.latency_seconds") / machine.need(
        machine.level("dram").latency_seconds, "levels.dram.latency_seconds"
    )
    found = {
        "launch_seconds": clock,
        "helper_seconds": clock,
        "profiled_launch_seconds": clock,
        "fill_latency": clock * latency,
        "profiled_fill_latency": clock * latency,
    }
    if not wide_of(machine) and not wide_of(donor):  # a warp's trip waits for its own multiplies
        found["step_clocks"] = full_clock(donor) / full_clock(machine)
    if machine.features.get("tensor_memory") and not donor.features.get("tensor_memory"):
        found["tensor_joules"] = watts_per_operation(machine) / joules
    else:
        clocks = [known.need(known.unit("tensor").clock_hz, "units.tensor.clock_hz") for known in (machine, donor)]
        shrunk = SHRUNK.get(machine.architecture, 1.0) / SHRUNK.get(donor.architecture, 1.0)
        found["tensor_joules"] = (clocks[0] / clocks[1]) ** 2 * shrunk
    return found


STARTED = {"blackwell_dc": 0.57}
"""Clocks of a launch in a replayed graph beside those of the generations before, of which three fits agree: 2030 on a B300 (its small products
take 2.0 us, which a Hopper's clocks would make 2.8) and 3300 to 3700 on an A100, an H100 and an L40S. Fitted to the B300: no spec sheet
says it."""

SHRUNK = {"ada": 0.58, "hopper": 0.58, "blackwell": 0.58, "blackwell_dc": 0.58}
"""Energy of an operation at one voltage beside that of the generation before these, in processes half as fine: fitted to what calibrations of an
A100 and an H100 say of 1.41 and 1.83 GHz. Voltage follows the clock, so energy goes with the clock's square: 1.27 pJ for an L40S at
2.49 GHz from the A100's 0.69, 1.25 from the H100's, and 1.20 fitted."""


def watts_per_operation(changed: Machine) -> float:
    """The power limit over the peak rate of 16-bit products: vendors size the one for the other."""
    machine = as_shipped(changed)
    return machine.need(machine.power_watts, "power_watts") / (machine.rate("tensor", "bf16") or 1.0)
