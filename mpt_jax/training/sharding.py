"""The mesh of devices, and the rules by which a population, its parameters and its batches are split over it.

The mesh has four axes:

* `seeds` and `objectives` split the members of a population, the two leading axes of its state. Devices communicate
  nothing along them.
* `data` and `fsdp` both split the batch. Parameters, optimizer state and averages are replicated over `data` and split
  over `fsdp`.

Everything else (images in memory, the teachers of a seed) is replicated over `data` and `fsdp`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mpt_jax import data, models
from mpt_jax.errors import InputError

MEMBERS, BATCH = ("seeds", "objectives"), ("data", "fsdp")
SMALLEST = 2**12  # numbers in a parameter; smaller ones are not split: their transfer costs more than it saves

_SMALL_NETWORK = 1_000_000  # parameters; operations of smaller networks are too short to be shared by cores
_COPIES = 2**30  # bytes of images on all cores of a CPU together


def make_mesh(devices: Sequence[jax.Device] | None = None, *, members: int = 1, fsdp: int = 1) -> Mesh:
    """Return a mesh of all devices (or these): ``members`` times ``data`` times ``fsdp``.

    Args:
      members: devices over which the members of a population are split; `choose_mesh` divides them between the axes.
      fsdp: devices over which parameters are split; 0: all that `members` leaves.

    Raises:
      InputError: the devices cannot be laid out like this.
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


def run_mesh(cores: Sequence[jax.Device], *, members: int = 1, fsdp: int = 1) -> Mesh:
    """Return the mesh of a run, for everything that is not a population: one core of a CPU, or all devices.

    Args:
      cores: of `hardware.core_devices`; empty: there are none to choose from.
    """
    return make_mesh(cores[:1]) if cores else make_mesh(members=members, fsdp=fsdp)


def choose_mesh(
    mesh: Mesh, cores: Sequence[jax.Device], module: nn.Module, images: Any, seeds: int, objectives: int
) -> Mesh:
    """Return the mesh that a population trains on: `mesh`, or a mesh of `cores` on which no batch is split.

    Cores serve networks of fewer than a million parameters with images in memory. Each core has a copy of the images,
    1 GiB in total at most.

    Args:
      mesh: of `run_mesh`.
      cores: of `hardware.core_devices`.
      images: uint8 ``[N, H, W, C]``, an array or a `data.Stream`.
    """
    params, _ = models.shapes(module, images.shape[1:])
    small = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) < _SMALL_NETWORK
    if small and not isinstance(images, data.Stream):
        cores = cores[: _COPIES // images.nbytes]
        if cores:
            return core_mesh(cores, seeds, objectives)
    return population_mesh(mesh, seeds, objectives)


def population_mesh(mesh: Mesh, seeds: int, objectives: int) -> Mesh:
    """Return a mesh of the same devices for a population of this size.

    The devices for members are split by seed as far as they divide, then by objective. Objectives need not divide, see
    `assign_members`. Devices left over join `data`.

    Examples:
      >>> import numpy as np
      >>> mesh = Mesh(np.array(jax.devices() * 6)[:6].reshape(6, 1, 1, 1), (*MEMBERS, *BATCH))
      >>> [tuple(population_mesh(mesh, *size).shape.values()) for size in ((2, 7), (3, 1), (5, 1))]
      [(2, 3, 1, 1), (3, 1, 2, 1), (1, 1, 6, 1)]
    """
    members = mesh.shape["seeds"] * mesh.shape["objectives"]
    by_seed = math.gcd(members, seeds)
    rest = members // by_seed
    by_objective = max(part for part in range(1, min(rest, objectives) + 1) if rest % part == 0)
    shape = (by_seed, by_objective, -1, mesh.shape["fsdp"])
    return Mesh(mesh.devices.reshape(shape), mesh.axis_names, axis_types=mesh.axis_types)


def core_mesh(cores: Sequence[jax.Device], seeds: int, objectives: int) -> Mesh:
    """Return the mesh of the fewest cores on which a population of this size finishes first, with no batch split.

    Examples:
      >>> six = jax.devices() * 6
      >>> [tuple(core_mesh(six[:6], *size).shape.values()) for size in ((8, 1), (1, 9), (3, 4), (5, 1), (1, 1))]
      [(4, 1, 1, 1), (1, 5, 1, 1), (3, 2, 1, 1), (5, 1, 1, 1), (1, 1, 1, 1)]
    """

    def duration(mesh: Mesh) -> float:
        """Return the duration in units of the time that one member takes, see `assign_members`."""
        each = objectives / mesh.shape["objectives"]
        return seeds / mesh.shape["seeds"] * (each if each >= 2 else math.ceil(each))

    meshes = (
        population_mesh(make_mesh(cores[:count], members=count), seeds, objectives)
        for count in range(1, len(cores) + 1)
    )
    return min((mesh for mesh in meshes if data_devices(mesh) == 1), key=duration)


def check_batch(mesh: Mesh, batch_size: int, accumulate: int, key: str = "optimizer.batch_size") -> None:
    """Check that the devices of a member get equally many images in every micro-batch.

    Raises:
      InputError: the batch does not divide.
    """
    devices, of_members = data_devices(mesh), mesh.size // data_devices(mesh)
    if batch_size % (devices * accumulate):
        each = f" that mesh.members={of_members} leaves to each" if of_members > 1 else ""
        times = f" times optimizer.accumulate={accumulate}" if accumulate > 1 else ""
        raise InputError(f"{key}={batch_size}; expected a multiple of the {devices} devices{each}{times}")


def data_devices(mesh: Mesh) -> int:
    """Return the number of devices over which a batch is split."""
    return math.prod(mesh.shape[axis] for axis in BATCH)


def parameter_spec(shape: Sequence[int], devices: int, smallest: int | None = None) -> P:
    """Return how an array of a member is split over the `fsdp` axis: along its largest dimension that divides, if any.

    Args:
      shape: without the leading axes over members.
      devices: of the axis.
      smallest: numbers below which an array is not split; None: `SMALLEST`.

    Examples:
      >>> [tuple(parameter_spec(shape, 8)) for shape in ((3, 3, 64, 128), (512, 100), (101, 103), (64,))]
      [(None, None, None, 'fsdp'), ('fsdp',), (), ()]
    """
    dividing = [axis for axis, size in enumerate(shape) if size % devices == 0]
    if devices == 1 or not dividing or math.prod(shape) < (SMALLEST if smallest is None else smallest):
        return P()
    return P(*[None] * max(dividing, key=lambda axis: (shape[axis], axis)), "fsdp")


def state_shardings(mesh: Mesh, state: Any) -> Any:
    """Return the sharding of every leaf ``[seeds, objectives, ...]`` of a state (arrays or their shapes)."""

    def sharding(leaf):
        pieces = parameter_spec(leaf.shape[2:], mesh.shape["fsdp"])
        return _sharding(mesh, P(*members_spec(mesh, leaf.shape[1]), *pieces))

    return jax.tree.map(sharding, state)


def member_sharding(mesh: Mesh, objectives: int) -> NamedSharding:
    """Return the sharding of numbers ``[seeds, objectives]``."""
    return _sharding(mesh, members_spec(mesh, objectives))


def members_spec(mesh: Mesh, objectives: int) -> P:
    """Return the spec of arrays ``[seeds, objectives]``.

    JAX cannot split unevenly, so every device has all objectives if they do not divide.
    """
    return P("seeds", "objectives" if objectives % mesh.shape["objectives"] == 0 else None)


def split_batch(mesh: Mesh, batch: Any) -> Any:
    """Split arrays ``[batch, ...]`` over the devices of a member, inside a compiled function."""
    return jax.lax.with_sharding_constraint(batch, NamedSharding(_visible(mesh), P(BATCH)))


def split_parameters(mesh: Mesh, state: Any) -> Any:
    """Split the state of one member over `fsdp`, inside a compiled function."""
    fsdp, here = mesh.shape["fsdp"], _visible(mesh)
    if fsdp == 1:
        return state
    shardings = jax.tree.map(lambda leaf: NamedSharding(here, parameter_spec(leaf.shape, fsdp)), state)
    return jax.lax.with_sharding_constraint(state, shardings)


def gather_parameters(mesh: Mesh, params: Any) -> Any:
    """Gather the parameters of one member on each of its devices, inside a compiled function.

    Each parameter is gathered on its own, so that the compiler may gather it where it is used and free it afterwards.
    """
    if mesh.shape["fsdp"] == 1:
        return params
    return jax.lax.with_sharding_constraint(params, NamedSharding(_visible(mesh), P()))


def assign_members(members: int, devices: int, *, in_pieces: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which device trains which member when, for members that do not divide by the devices.

    Training has two rounds, between which members may change their device. In each, a device trains its n members one
    after another, from step ``begin * steps // devices`` to ``end * steps // devices``.

    With `in_pieces` and at least two members per device, all devices work ``members / devices`` times as long as a
    member takes (McNaughton, Scheduling with deadlines and loss functions, 1959): a member that two devices share is
    trained by one of them in the first round and finished by the other in the second. Otherwise the second round is
    empty.

    Returns:
      Indices of the members, begin and end, each ``[2, devices, n]``. The index `members` means none.

    Examples:
      >>> index, begin, end = assign_members(5, 2, in_pieces=True)
      >>> index.tolist()
      [[[0, 5, 5], [2, 3, 5]], [[0, 1, 2], [3, 4, 5]]]
      >>> (end - begin).tolist()
      [[[2, 0, 0], [1, 1, 0]], [[0, 2, 1], [1, 2, 0]]]
    """
    if not in_pieces or members < 2 * devices:
        most = -(-members // devices)
        index = np.minimum(np.arange(devices * most), members).reshape(1, devices, most)
        index = np.concatenate([index, np.full_like(index, members)]).astype(np.int32)
        return index, np.zeros_like(index), np.where(index < members, devices, 0).astype(np.int32)
    # A line of `members * devices` units of work, cut into one piece of `members` units per device.
    pieces = []
    for device in range(devices):
        first, last = device * members, (device + 1) * members
        done = -first % devices  # units of its first member that it shares with the device before: they come first
        row = [(i, 0, devices) for i in range(-(-first // devices), last // devices)]
        early = [(row[0][0], 0, devices - done)]
        late = [(row[0][0], devices - done, devices), *row[1:]]
        if done:
            early.insert(0, (first // devices, 0, done))
        if last % devices:
            late.append((last // devices, devices - last % devices, devices))
        pieces.append((early, late))
    most = max(len(row) for both in pieces for row in both)
    rounds = [[both[i] + [(members, 0, 0)] * (most - len(both[i])) for both in pieces] for i in (0, 1)]
    table = np.array(rounds, np.int32)
    return table[..., 0], table[..., 1], table[..., 2]


def over_members(mesh: Mesh, function: Callable, in_specs: Any, out_specs: Any) -> Callable:
    """Return a function that applies `function` on each device to its own members, with arrays split by the specs.

    A `vmap` over a split axis would not do: it turns the convolutions of a network into grouped ones.
    """
    if mesh.shape["seeds"] == mesh.shape["objectives"] == 1:
        return function
    return jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, axis_names=set(MEMBERS), check_vma=False
    )


def named_shardings(mesh: Mesh, tree: Any, specs: Any) -> Any:
    """Return the shardings of a tree, from specs that are a prefix of it."""
    return jax.tree.map(
        lambda spec, part: jax.tree.map(lambda _: _sharding(mesh, spec), part),
        *(specs, tree),
        is_leaf=lambda leaf: isinstance(leaf, P),
    )


def _sharding(mesh: Mesh, spec: P) -> NamedSharding:
    """Return the sharding in its shortest form: JAX compiles again for an equal placement in another form."""
    axes = [axis if axis is not None and mesh.shape[axis] > 1 else None for axis in spec]
    while axes and axes[-1] is None:
        axes.pop()
    return NamedSharding(mesh, P(*axes))


def _visible(mesh: Mesh) -> Any:
    """Return the mesh that is visible where this is traced: inside `over_members` without the axes of members."""
    abstract = jax.sharding.get_abstract_mesh()
    return mesh if abstract.empty else abstract
