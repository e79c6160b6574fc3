"""The mesh of devices, and the rules by which a population, its parameters and its batches are split over it.

Four axes. `seeds` and `objectives` split the members of a population, the two leading axes of its state: no device
needs anything from another one along them. `data` and `fsdp` both split the batch; parameters, optimiser state and
averages are whole on every device of `data` and in pieces over those of `fsdp`. Everything else (the images, the
teachers of a seed) is whole on every device. A floor below `training`, which alone says what is split where.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mpt_jax.errors import InputError

MEMBERS, BATCH = ("seeds", "objectives"), ("data", "fsdp")
SMALLEST = 2**12  # numbers in a parameter; smaller ones stay whole, as their transfer costs more than they take


def make_mesh(devices: Sequence[jax.Device] | None = None, *, members: int = 1, fsdp: int = 1) -> Mesh:
    """All devices (or these) with ``members`` times ``data`` times ``fsdp`` of them; `of_population` divides `members`.

    Args:
      members: devices over which the members of a population are split.
      fsdp: devices over which parameters are split; 0: all but those of other members.

    Raises:
      InputError: the devices cannot be laid out so.
    """
    devices = jax.devices() if devices is None else devices
    if len(devices) % members or (fsdp and len(devices) // members % fsdp):
        raise InputError(
            f"mesh.members={members} and mesh.fsdp={fsdp}; expected numbers whose product divides the {len(devices)} "
            "devices, or mesh.fsdp=0 for all that mesh.members leaves"
        )
    fsdp = fsdp or len(devices) // members
    shape = (members, 1, len(devices) // (members * fsdp), fsdp)
    return jax.make_mesh(shape, (*MEMBERS, *BATCH), axis_types=(AxisType.Auto,) * 4, devices=devices)


def of_population(mesh: Mesh, seeds: int, objectives: int) -> Mesh:
    """The same devices for a population of this size: members split by seed as far as they divide, then by objective.

    Objectives need not divide, see `shares`. The devices that are left over join `data`.

    Examples:
      >>> import numpy as np
      >>> mesh = Mesh(np.array(jax.devices() * 6)[:6].reshape(6, 1, 1, 1), (*MEMBERS, *BATCH))
      >>> [tuple(of_population(mesh, *size).shape.values()) for size in ((2, 7), (3, 1), (5, 1))]
      [(2, 3, 1, 1), (3, 1, 2, 1), (1, 1, 6, 1)]
    """
    members = mesh.shape["seeds"] * mesh.shape["objectives"]
    by_seed = math.gcd(members, seeds)
    rest = members // by_seed
    by_objective = max(part for part in range(1, min(rest, objectives) + 1) if rest % part == 0)
    shape = (by_seed, by_objective, -1, mesh.shape["fsdp"])
    return Mesh(mesh.devices.reshape(shape), mesh.axis_names, axis_types=mesh.axis_types)


def of_cores(cores: Sequence[jax.Device], seeds: int, objectives: int) -> Mesh:
    """A mesh for a population of this size in which no batch is split: of as many cores as make it soonest done.

    Examples:
      >>> six = jax.devices() * 6
      >>> [tuple(of_cores(six[:6], *size).shape.values()) for size in ((8, 1), (1, 9), (3, 4), (5, 1), (1, 1))]
      [(4, 1, 1, 1), (1, 5, 1, 1), (3, 2, 1, 1), (5, 1, 1, 1), (1, 1, 1, 1)]
    """

    def in_turn(mesh: Mesh) -> float:
        """How many members' times it takes, see `shares`."""
        each = objectives / mesh.shape["objectives"]
        return seeds / mesh.shape["seeds"] * (each if each >= 2 else math.ceil(each))

    meshes = (
        of_population(make_mesh(cores[:count], members=count), seeds, objectives) for count in range(1, len(cores) + 1)
    )
    return min((mesh for mesh in meshes if data_devices(mesh) == 1), key=in_turn)


def check_batch(mesh: Mesh, batch_size: int, accumulate: int, key: str = "optimizer.batch_size") -> None:
    """Every device of a member must have as many images as the others, in every micro-batch.

    Raises:
      InputError: the batch does not divide.
    """
    devices, of_members = data_devices(mesh), mesh.size // data_devices(mesh)
    if batch_size % (devices * accumulate):
        each = f" that mesh.members={of_members} leaves to each" if of_members > 1 else ""
        times = f" times optimizer.accumulate={accumulate}" if accumulate > 1 else ""
        raise InputError(f"{key}={batch_size}; expected a multiple of the {devices} devices{each}{times}")


def data_devices(mesh: Mesh) -> int:
    """Over how many devices a batch is split."""
    return math.prod(mesh.shape[axis] for axis in BATCH)


def parameter_spec(shape: Sequence[int], devices: int, smallest: int | None = None) -> P:
    """How an array of a member is split over the `fsdp` axis: along its largest dimension that divides, if any.

    Args:
      shape: without the leading axes over members.
      devices: of the axis.
      smallest: numbers below which an array stays whole; None: `SMALLEST`.

    Examples:
      >>> [tuple(parameter_spec(shape, 8)) for shape in ((3, 3, 64, 128), (512, 100), (101, 103), (64,))]
      [(None, None, None, 'fsdp'), ('fsdp',), (), ()]
    """
    dividing = [axis for axis, size in enumerate(shape) if size % devices == 0]
    if devices == 1 or not dividing or math.prod(shape) < (SMALLEST if smallest is None else smallest):
        return P()
    return P(*[None] * max(dividing, key=lambda axis: (shape[axis], axis)), "fsdp")


def of_state(mesh: Mesh, state: Any) -> Any:
    """The sharding of every leaf ``[seeds, objectives, ...]`` of a population's state (arrays or their shapes)."""

    def sharding(leaf):
        pieces = parameter_spec(leaf.shape[2:], mesh.shape["fsdp"])
        return _sharding(mesh, P(*members_spec(mesh, leaf.shape[1]), *pieces))

    return jax.tree.map(sharding, state)


def of_members(mesh: Mesh, objectives: int) -> NamedSharding:
    """Of numbers ``[seeds, objectives]``."""
    return _sharding(mesh, members_spec(mesh, objectives))


def members_spec(mesh: Mesh, objectives: int) -> P:
    """What splits arrays ``[seeds, objectives]``: JAX knows no uneven parts, each device has all objectives then."""
    return P("seeds", "objectives" if objectives % mesh.shape["objectives"] == 0 else None)


def split_batch(mesh: Mesh, batch: Any) -> Any:
    """Arrays ``[batch, ...]`` split over the devices of a member, inside of a compiled function."""
    return jax.lax.with_sharding_constraint(batch, NamedSharding(_visible(mesh), P(BATCH)))


def split_parameters(mesh: Mesh, state: Any) -> Any:
    """The state of one member in pieces over `fsdp`, inside of a compiled function."""
    fsdp, here = mesh.shape["fsdp"], _visible(mesh)
    if fsdp == 1:
        return state
    shardings = jax.tree.map(lambda leaf: NamedSharding(here, parameter_spec(leaf.shape, fsdp)), state)
    return jax.lax.with_sharding_constraint(state, shardings)


def gather_parameters(mesh: Mesh, params: Any) -> Any:
    """The parameters of one member whole on each of its devices, inside of a compiled function.

    Each is gathered on its own, so that the compiler may do it where it is used and drop it after.
    """
    if mesh.shape["fsdp"] == 1:
        return params
    return jax.lax.with_sharding_constraint(params, NamedSharding(_visible(mesh), P()))


def shares(members: int, devices: int, *, in_pieces: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Who trains which member when, where members do not divide by the devices: indices and bounds ``[2, devices, n]``.

    In each of the two rounds, between which members may change their device, a device trains its n members one after
    another from step ``begin * steps // devices`` to ``end * steps // devices``. An index of `members` is none.

    In pieces, and with at least two members for each device, all devices work ``members / devices`` times as long as a
    member takes (McNaughton, Scheduling with deadlines and loss functions, 1959): a member that two devices share is in
    the first round with one of them and ends in the second with the other. Else the second round is empty.

    Examples:
      >>> index, begin, end = shares(5, 2, in_pieces=True)
      >>> index.tolist()
      [[[0, 5, 5], [2, 3, 5]], [[0, 1, 2], [3, 4, 5]]]
      >>> (end - begin).tolist()
      [[[2, 0, 0], [1, 1, 0]], [[0, 2, 1], [1, 2, 0]]]
    """
    if not in_pieces or members < 2 * devices:
        most = -(-members // devices)
        index = np.minimum(np.arange(devices * most), members).reshape(1, devices, most)
        index = np.concatenate([index, np.full_like(index, members)]).astype(np.int32)
        return index, np.zeros_like(index), np.int32(index < members) * np.int32(devices)
    # A line of `members` times `devices` units of work, cut into pieces of `members` units, one for each device.
    pieces = []
    for device in range(devices):
        first, last = device * members, (device + 1) * members
        done = -first % devices  # units of its first member that it shares with the device before: those come first
        row = [(i, 0, devices) for i in range(-(-first // devices), last // devices)]
        early = [(row[0][0], 0, devices - done)]
        late = [(row[0][0], devices - done, devices), *row[1:]]
        if done:
            early.insert(0, (first // devices, 0, done))
        if last % devices:
            late.append((last // devices, devices - last % devices, devices))
        pieces.append((early, late))
    most = max(len(row) for both in pieces for row in both)
    table = np.int32([[both[i] + [(members, 0, 0)] * (most - len(both[i])) for both in pieces] for i in (0, 1)])
    return table[..., 0], table[..., 1], table[..., 2]


def over_members(mesh: Mesh, function: Callable, in_specs: Any, out_specs: Any) -> Callable:
    """``function(...)`` on each device's own members, arrays split as the specs say.

    Not a `vmap` whose axis is split: that would turn a network's convolutions into grouped ones.
    """
    if mesh.shape["seeds"] == mesh.shape["objectives"] == 1:
        return function
    return jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, axis_names=set(MEMBERS), check_vma=False
    )


def placed(mesh: Mesh, tree: Any, specs: Any) -> Any:
    """Shardings of a tree from a tree of its prefixes in specs."""
    return jax.tree.map(
        lambda spec, part: jax.tree.map(lambda _: _sharding(mesh, spec), part),
        *(specs, tree),
        is_leaf=lambda leaf: isinstance(leaf, P),
    )


def _sharding(mesh: Mesh, spec: P) -> NamedSharding:
    """In its shortest form, so that equal placements are equal: another one would be compiled for anew."""
    axes = [axis if axis is not None and mesh.shape[axis] > 1 else None for axis in spec]
    while axes and axes[-1] is None:
        axes.pop()
    return NamedSharding(mesh, P(*axes))


def _visible(mesh: Mesh) -> Any:
    """The mesh as it is known where this is traced: inside of `over_members` the members' axes are spoken for."""
    abstract = jax.sharding.get_abstract_mesh()
    return mesh if abstract.empty else abstract
