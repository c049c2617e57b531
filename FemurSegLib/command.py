"""The command line `femurseg`. Bodies are imported when they run, so that `--help` answers at once.

`train`, `evaluate` and `phantom` live in their own rooms: the page `command.py` of each exports
`add_parser(subparsers)`, which adds a parser with `set_defaults(run=function)`; `function(args)` returns an
exit code or raises a FemurSegError. Importing that page must be light.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from . import __version__, models, progress, sides
from .anatomy.command import add_compartment_options, add_spread_option, compartment_options
from .errors import CancelledError, FemurSegError, InputError, MemoryExhaustedError, kinds

ROOMS = ("training", "evaluation", "phantom", "anatomy", "report", "surfaces")
HEAVY = ("segmentation.inference", "segmentation.network", "localization.detector")
"""Pages whose libraries take seconds to load."""
SIDE_CHOICES = {"both": sides.SIDES, "right": (sides.RIGHT,), "left": (sides.LEFT,)}


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code; see `exit_codes`. Usage errors leave by SystemExit(2)."""
    args = _parser().parse_args(argv)
    with _messages_on_stderr() as stdout, _stoppable():
        report = _reporter(getattr(args, "progress", "none"), stdout)
        try:
            return args.run(args, report) if args.command == "segment" else _in_room(args, stdout)
        except FemurSegError as error:
            return _fail(error, report)
        except KeyboardInterrupt:
            nothing = "; nothing was written" if args.command == "segment" else ""  # others keep what is whole
            return _fail(CancelledError(f"Stopped{nothing}."), report)
        except BrokenPipeError:  # who read the table has seen enough, as `head` does
            return 0
        except MemoryError:
            hint = "Close other programs, or cut the CT to the legs."
            return _fail(MemoryExhaustedError("The main memory does not suffice.", hint), report)
        except Exception as error:
            traceback.print_exc()
            told = FemurSegError(
                f"Something unexpected went wrong ({type(error).__name__}: {error}).",
                "This is a fault of FemurSeg. Please report it with the lines above.",
            )
            return _fail(told, report)


def program() -> None:
    """Entry point of the installed command."""
    _prefer_huge_pages()
    sys.exit(main())


def exit_codes() -> str:
    """The exit codes, one a line, for --help and the README."""
    lines = ["  0  done", "  2  the command was not understood"]
    lines += [f"{kind.exit_code:3}  {_first_line(kind)}" for kind in kinds()]
    return "\n".join([*lines, f"{FemurSegError.exit_code:3}  anything unexpected, a fault of FemurSeg"])


def segment(args: argparse.Namespace, report: progress.Listener) -> int:
    """From a CT to a result folder."""
    from .result import check_folder, write_result

    started = time.perf_counter()
    check_folder(args.out)
    drawn = _read_regions(args.region) if args.region else None
    method, density = compartment_options(args)
    models.of_run(args.network, None, args.data_set, drawn is None, method == "network")  # before the CT is read
    report(progress.progress("read"))
    # Loading the networks' libraries takes as long as reading a large CT; both are done at once. Python waits
    # for the thread at exit, so it is never cut off in the middle.
    loading = threading.Thread(target=_load_quietly, args=(HEAVY,))
    from .volume import read_ct

    loading.start()
    volume = read_ct(args.ct)
    seconds = {"read": time.perf_counter() - started}
    began = time.perf_counter()
    loading.join()
    from . import pipeline

    seconds["load"] = time.perf_counter() - began
    options = {"device": args.device, "sides": SIDE_CHOICES[args.side], "network": args.network}
    if args.data_set is not None:
        options["data_set"] = args.data_set
    if args.margin_mm is not None:
        options["margin_mm"] = args.margin_mm
    if method is not None:
        options["compartments"] = method
    if density is not None:
        options["density"] = density
    if args.spread:
        options["perturbations"] = args.spread
    if drawn is not None:
        from .localization.region import drawn_regions

        options["regions"] = drawn_regions(drawn, volume.grid.oriented())
    segmentation = pipeline.segment_femurs(volume, progress=report, **options)
    del volume  # its memory is better used for writing
    for stage, value in segmentation.seconds.items():
        seconds[stage] = seconds.get(stage, 0) + value
    segmentation.seconds = seconds
    folder = write_result(args.out, segmentation, source=os.path.abspath(args.ct), started=started, listener=report)
    report(progress.finished(folder))
    return 0


def _margin(text: str) -> float:
    if not 0 <= float(text) <= 100:
        raise argparse.ArgumentTypeError(f"{text} mm is not between 0 and 100")
    return float(text)


def _read_regions(path) -> dict:
    """The boxes of a --region file, by side. Raises InputError."""
    try:
        drawn = json.loads(Path(path).read_text(encoding="utf-8"))
        return dict(drawn)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"The boxes in {path} could not be read.", "Give a JSON file.") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="femurseg",
        description="Both femora from a lower-limb CT. For research; not a medical device.",
        epilog=f"exit codes:\n{exit_codes()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"femurseg {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_segment(commands)
    for room in ROOMS:
        name = f"{__package__}.{room}.command"
        if importlib.util.find_spec(name):
            importlib.import_module(name).add_parser(commands)
    return parser


def _add_segment(commands) -> None:
    parser = commands.add_parser(
        "segment",
        help="segment the femora of one CT",
        description="Segment the femora of one CT and write a folder of results.",
        epilog=f"exit codes:\n{exit_codes()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("ct", metavar="CT", help="NIfTI, NRRD or MetaImage file, or a folder with one DICOM series")
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder for the result: new, empty, or an earlier one"
    )
    parser.add_argument("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto", help="default: auto")
    parser.add_argument(
        "--side", choices=tuple(SIDE_CHOICES), default="both", help="the patient's side; default: both"
    )
    parser.add_argument(
        "--network", default="segresnet", metavar="NAME", help="segmentation network; default: segresnet"
    )
    models.add_weights_option(parser)
    parser.add_argument(
        "--margin-mm",
        type=_margin,
        metavar="MM",
        help="context around the boxes that the segmentation network sees; default: 12",
    )
    parser.add_argument(
        "--region",
        metavar="JSON",
        help="file with a box a side (as in result.json: center_lps_mm, size_mm, axes_lps); segment there",
    )
    parser.add_argument(
        "--progress",
        choices=("bar", "json", "none"),
        default="bar",
        help="json: one event a line on stdout; default: bar",
    )
    add_compartment_options(parser, default="none")
    add_spread_option(parser, default=0)
    parser.set_defaults(run=segment)


def _in_room(args, stdout) -> int:
    """Run a command of another room, which prints to stdout as any program does."""
    with contextlib.redirect_stdout(stdout):
        return args.run(args) or 0


def _load_quietly(pages: tuple[str, ...]) -> None:
    """Import ahead of need; what is wrong shows when a page is imported in earnest."""
    for page in pages:
        with contextlib.suppress(Exception):
            importlib.import_module(f"{__package__}.{page}")


# What the user sees


def _reporter(kind: str, stdout) -> progress.Listener:
    return {"bar": _Bar, "json": _Json}.get(kind, _Quiet)(stdout)


class _Quiet:
    """Errors on stderr, and the folder of the result on stdout."""

    def __init__(self, stdout):
        self.stdout = stdout

    def __call__(self, event: progress.Event) -> None:
        if event["event"] == "error":
            hint = f" {event['hint']}" if event["hint"] else ""
            print(f"femurseg: {event['message']}{hint}", file=sys.stderr)
        elif event["event"] == "result":
            print(event["folder"], file=self.stdout, flush=True)


class _Bar(_Quiet):
    """On a terminal one line with a bar and the stage in words; elsewhere a line when the words change."""

    WIDTH = 24

    def __init__(self, stdout):
        super().__init__(stdout)
        self.live = sys.stderr.isatty()
        self.words = None
        self.drawn = False

    def __call__(self, event: progress.Event) -> None:
        if event["event"] == "progress":
            self._draw(event["fraction"], event["message"])
            return
        if self.drawn:
            self._draw(1.0, "Done") if event["event"] == "result" else None
            print(file=sys.stderr)
            self.drawn = False
        if event["event"] == "warning":
            print(f"Note: {event['message']}", file=sys.stderr)
        super().__call__(event)

    def _draw(self, fraction: float, words: str) -> None:
        if self.live:
            done = round(fraction * self.WIDTH)
            line = f"[{'#' * done}{'.' * (self.WIDTH - done)}] {fraction:4.0%}  {words}"
            columns = shutil.get_terminal_size().columns - 1
            print(f"\r{line[:columns]:<{columns}}", end="", file=sys.stderr, flush=True)
            self.drawn = True
        elif words != self.words:
            print(f"{fraction:4.0%}  {words}", file=sys.stderr, flush=True)
        self.words = words


class _Json:
    """One event a line, and nothing else, on stdout."""

    def __init__(self, stdout):
        self.stdout = stdout

    def __call__(self, event: progress.Event) -> None:
        try:
            print(json.dumps(event), file=self.stdout, flush=True)
        except BrokenPipeError:  # who started this is gone
            raise KeyboardInterrupt from None


def _fail(error: FemurSegError, report: progress.Listener) -> int:
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        report(progress.failed(error))
    return error.exit_code


def _first_line(kind: type) -> str:
    line = kind.__doc__.splitlines()[0].rstrip(".")
    return line[0].lower() + line[1:]


# The process


@contextlib.contextmanager
def _messages_on_stderr() -> Iterator:
    """Yield the true stdout; meanwhile all that libraries print there, from C++ too, goes to stderr."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    stdout = os.fdopen(kept, "w", encoding="utf-8", closefd=False)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield stdout
    finally:
        with contextlib.suppress(BrokenPipeError):
            stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM stops the run as Ctrl-C does; while it cleans up, further ones are ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number, frame):
        for each in kinds:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    kinds = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(each, stop) for each in kinds]
    try:
        yield
    finally:
        for each, handler in zip(kinds, before, strict=True):
            signal.signal(each, handler)


def _prefer_huge_pages() -> None:
    """Start this process anew with huge pages for malloc, which must be asked for then: faster on a CPU."""
    heavy = len(sys.argv) > 1 and sys.argv[1] in ("segment", "train", "evaluate", "phantom")
    if not sys.platform.startswith("linux") or not heavy or "GLIBC_TUNABLES" in os.environ or not sys.executable:
        return
    environment = {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    with contextlib.suppress(OSError):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
