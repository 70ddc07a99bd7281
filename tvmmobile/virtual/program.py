"""Runs any AArch64 program on a virtual board under QEMU, counting executed blocks of its marked region and simulating caches.

The region lies between the system calls prctl(0x7a110001, 0, 0, 0, 0) and prctl(0x7a110002, 0, 0, 0, 0), which Linux refuses, so that they
do no harm on a board; a program without them is modelled as a whole. By default only the thread that opens the region is modelled.

A program that takes long to start may call prctl(0x7a110004, 0, 0, 0, 0) before it warms up: with `skip_start`, caches are simulated only
from there on, and the program runs about eight times as fast before.
"""

from __future__ import annotations

import functools
import re
import shutil
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tvmmobile.system.doctor import qemu_with_plugins, require
from tvmmobile.system.errors import UserError, one_line
from tvmmobile.system.files import check_space
from tvmmobile.system.programs import signal_name
from tvmmobile.system.scratch import scratch, scratch_folder
from tvmmobile.virtual.board import VIRTUAL_SUFFIX, Board, load_board
from tvmmobile.virtual.calibration.fit import calibration_of
from tvmmobile.virtual.calibration.terms import overlaps
from tvmmobile.virtual.cores.core_model import CoreTime, core_time
from tvmmobile.virtual.elf import Mapping, NotElf, parse_maps, read_elf
from tvmmobile.virtual.modelled import ModelledRun, modelled_run
from tvmmobile.virtual.plugin.build import build_plugin
from tvmmobile.virtual.profile import INSTRUCTION_BYTES, Block, Profile, parse_profile

#: Folder with the libraries of the Debian package g++-aarch64-linux-gnu.
CROSS_SYSROOT = Path("/usr/aarch64-linux-gnu")
#: Seed of QEMU's random values for the program (stack protectors, AT_RANDOM), so that all runs are the same.
SEED = "1"
_CUT = re.compile(r"[\s:,]")
_MARKERS = (
    "The region lies between prctl(0x7a110001,0,0,0,0) and prctl(0x7a110002,0,0,0,0), both called by the same thread; "
    "with --skip-start, prctl(0x7a110004,0,0,0,0) comes before it."
)


@dataclass(frozen=True)
class ProgramRun:
    """A program's region, or whole run, on a virtual board.

    Attributes:
        modelled: modelled time and counts.
        core: uncorrected cycles of llvm-mca, and instructions.
        zeroed_lines: number of lines cleared by DC ZVA, as in glibc's memset; QEMU hides their addresses, so they are missing from the
            simulated caches.
        regions: number of modelled regions, whose figures are added up; 0 for a whole run.
        other_instructions: number of instructions that other threads executed meanwhile, which are not modelled.
        mappings: files in the program's memory.
    """

    modelled: ModelledRun
    core: CoreTime
    zeroed_lines: int
    regions: int
    other_instructions: int
    mappings: tuple[Mapping, ...]


def run_program(
    board: str | Board,
    command: Sequence[str],
    sysroot: str | Path | None = None,
    hottest: int = 0,
    threads: int = 1,
    *,
    skip_start: bool = False,
) -> ProgramRun:
    """Run a program to its end on a virtual board. Its environment, input and output are this process's own.

    Args:
        board: a virtual board's name, the path of its file, or what `load_board` returns.
        command: the program and its arguments; a program without `/` is looked for in the sysroot and in PATH.
        sysroot: root in which the program finds its libraries and its own `/proc/cpuinfo`; the cross compiler's by default.
        hottest: number of blocks to show.
        threads: 1 models the thread that opens the region, more all threads, each on a core of its own.
        skip_start: simulate nothing before the program's call for it.

    Returns:
        The modelled time of the program's regions, or of its whole run if it opens none.

    Raises:
        UserError: the program cannot run, fails, or has no region that could be modelled; or QEMU, llvm or a compiler is missing.
    """
    board = load_board(board.removesuffix(VIRTUAL_SUFFIX)) if isinstance(board, str) else board
    if threads > board.cores:
        raise UserError(f"{board.board} has {board.cores} cores, not {threads}.", f"Give --threads {board.cores} or less.")
    calibration_of(board)  # an invalid one is refused before the program runs
    profile, maps = profile_program(board, command, None if sysroot is None else Path(sysroot), skip_start=skip_start)
    return model_program(parse_profile(profile), maps, board, hottest, threads)


def profile_program(board: Board, command: Sequence[str], sysroot: Path | None = None, *, skip_start: bool = False) -> tuple[bytes, str]:
    """Run a program to its end, as `run_program` does; return the plugin's output, for `parse_profile`, and its memory map.

    Raises:
        UserError: see `run_program`.
    """
    program, root = find_program(command[0], sysroot)
    with scratch("run") as folder:
        words = [*qemu_words(board, str(folder), skip_start), *(["-L", str(root)] if root else [])]
        process = _run_to_the_end([*words, str(program), *command[1:]])
        _check_end(process.returncode, command[0])
        return read_profile(folder, process.pid, command[0])


def model_program(profile: Profile, maps: str, board: Board, hottest: int = 0, threads: int = 1) -> ProgramRun:
    """Model a program from the plugin's output; see `run_program`."""
    own = profile.of_thread(profile.thread)
    blocks = (own if threads == 1 else profile).executed()
    core = core_time(blocks, board, 0)
    everything = sum(block.count * len(block.code) // INSTRUCTION_BYTES for block in profile.executed())
    return ProgramRun(
        modelled=modelled_run(profile, board, threads, hottest),
        core=core,
        zeroed_lines=sum(block.count * _zeroing(block) for block in blocks),
        regions=profile.regions,
        other_instructions=everything - core.instructions,
        mappings=parse_maps(maps, profile.guest_base),
    )


def qemu_words(board: Board, folder: str, skip_start: bool = False) -> list[str]:
    """Return the command line of QEMU with the plugin that writes profiles to `folder`, without the program; see `run_program`.

    Raises:
        UserError: QEMU or the plugin's compiler is not installed, or QEMU has no usable plugins.
    """
    qemu_with_plugins()
    caches = board.caches
    options = f"dir={folder.replace(',', ',,')},line={caches.line_bytes},l1d={caches.l1d_bytes}/{caches.l1d_ways}"
    options += f",l2={caches.l2_bytes}/{caches.l2_ways}"
    options += f",l3={caches.l3_bytes}/{caches.l3_ways}" if caches.has_l3 else ""
    options += ",watch=marked" * skip_start
    plugin = _plainly_named(build_plugin(phases=overlaps(board)))
    # QEMU preloads the plugin for its sched_yield; the program gets the unchanged environment.
    return ["env", f"LD_PRELOAD={plugin}", *plain_qemu_words(board), "-U", "LD_PRELOAD", "-plugin", f"{plugin},{options}"]


@functools.cache
def _plainly_named(plugin: Path) -> Path:
    """Return a path of the plugin without characters that end a name: blanks and colons in LD_PRELOAD, and commas in QEMU's options."""
    if not _CUT.search(str(plugin)):
        return plugin
    link = scratch_folder("plugin") / plugin.name
    if _CUT.search(str(link)):
        raise UserError(f"QEMU cannot load {plugin}: its name has a blank, colon or comma.", "Set TVMMOBILE_CACHE to a folder without any.")
    link.symlink_to(plugin)
    return link


def plain_qemu_words(board: Board) -> list[str]:
    """Return the command line of QEMU without the plugin, for runs that are not modelled.

    Raises:
        UserError: QEMU is not installed.
    """
    return [str(require("qemu-aarch64")), "-cpu", board.qemu_cpu, "-seed", SEED]


def _zeroing(block: Block) -> int:
    """Count a block's instructions DC ZVA, Xt (Arm ARM, C5.3.8)."""
    return sum(word & 0xFFFFFFE0 == 0xD50B7420 for (word,) in struct.iter_unpack("<I", block.code))


def find_program(name: str, sysroot: Path | None) -> tuple[Path, Path | None]:
    """Return the AArch64 program of that name, and the sysroot with which to run it, if one is needed.

    Raises:
        UserError: there is no such program, it is a script or for another machine, or its dynamic loader is missing.
    """
    if sysroot is not None and not sysroot.is_dir():
        raise UserError(f"--sysroot {sysroot} is not a folder.", "Build one: ./scripts/sysroot")
    candidates = [path for path in _candidates(name, sysroot) if path.is_file()]
    if not candidates:
        raise UserError(f"there is no program {name!r}.", "Give its path, or the folder that holds it with --sysroot.")
    problems = [_problem_of(path) for path in candidates]
    if all(problems):
        raise UserError(*next(problem for problem in problems if problem))
    path = candidates[problems.index(None)]
    interpreter = read_elf(path).interpreter
    root = sysroot or (CROSS_SYSROOT if (CROSS_SYSROOT / interpreter.lstrip("/")).is_file() else None)
    if interpreter and not ((root and (root / interpreter.lstrip("/")).is_file()) or Path(interpreter).is_file()):
        where = f"in {root}" if root else "here"
        raise UserError(f"{path} needs {interpreter}, which is not {where}.", "Give the folder that holds it with --sysroot.")
    return path, root


def _candidates(name: str, sysroot: Path | None) -> list[Path]:
    if "/" in name:
        return [Path(name), *([sysroot / name.lstrip("/")] if sysroot and name.startswith("/") else [])]
    inside = [sysroot / folder / name for folder in ("usr/local/bin", "usr/bin", "bin", "usr/sbin", "sbin")] if sysroot else []
    found = shutil.which(name)
    return [*inside, *([Path(found)] if found else [])]


def _problem_of(path: Path) -> tuple[str, str] | None:
    """Return why a file cannot run on a board, and the remedy; `None` if it can."""
    try:
        elf = read_elf(path)
    except NotElf:
        with path.open("rb") as stream:
            script = stream.read(2) == b"#!"
        if script:
            return f"{path} is a script.", "Name the program that interprets it first, then the script."
        return f"{path} is not an executable that Linux can run.", "Give an AArch64 program."
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}.", "Check its permissions."
    if elf.machine != "AArch64":
        return f"{path} is a program for {elf.machine}, not for AArch64.", "Build it for aarch64-linux-gnu, or name one from a --sysroot."
    return None if elf.runs else (f"{path} is an object file, not a program.", "Link it first.")


def _run_to_the_end(words: list[str]) -> subprocess.Popen[bytes]:
    with subprocess.Popen(words) as process:
        try:
            process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
    return process


def _check_end(code: int, name: str) -> None:
    if code < 0:
        raise UserError(f"{name} was killed by {signal_name(-code)}.", "Run it on a board or under qemu-aarch64 to see why.")
    if code:
        raise UserError(f"{name} exited with code {code}.", "See the program's own output: only a run that exits with 0 is modelled.")


def read_profile(folder: Path, process: int, name: str) -> tuple[bytes, str]:
    """Return the profile and memory map of the only process with a region, or otherwise of the program itself.

    Raises:
        UserError: there is no profile, several processes have regions, or the profile is damaged or reports a problem.
        OSError: the disk is full.
    """
    texts = {int(path.stem): path.read_bytes() for path in folder.glob("*.profile")}
    try:
        profiles = {pid: parse_profile(text) for pid, text in texts.items()}
    except ValueError as error:
        raise UserError(f"{name} left {one_line(error)}.", f"Free some space in {folder.parent}; it ends with the program.") from error
    marked = [pid for pid, profile in profiles.items() if profile.regions or profile.problem]
    if len(marked) > 1:
        raise UserError(f"{len(marked)} processes of {name} have regions.", "Mark the region in one process only.")
    pid = marked[0] if marked else process
    if pid not in profiles:
        check_space(folder)
        raise UserError(f"{name} left nothing to model: it became another program (exec).", "Name that program instead.")
    if profiles[pid].problem:
        raise UserError(f"{name} cannot be modelled: {profiles[pid].problem}.", _MARKERS)
    return texts[pid], (folder / f"{pid}.maps").read_text(encoding="utf-8", errors="replace")
