"""The live view: the overview, refreshed, and the latest groups to leaf through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from rich.console import RenderableType
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Footer, Static
from textual.worker import Worker, WorkerState

from common.streams import Broker
from common.untrusted import printable
from deploy.monitor.group_page import group_page
from deploy.monitor.overview import overview, page
from deploy.monitor.snapshot import Looker


class Top(App[None]):
    """Looks at the broker in a thread every `every_s` seconds; keys never wait for it."""

    CSS = "Screen { background: $background; } VerticalScroll { scrollbar-size-vertical: 1; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("o", "overview", "overview"),
        Binding("g", "groups", "groups"),
        Binding("n,right", "leaf(1)", "older", key_display="n"),
        Binding("p,left", "leaf(-1)", "newer", key_display="p"),
        Binding("r", "look", "look again"),
    ]
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, broker: Broker, every_s: float, bars: str) -> None:
        super().__init__()
        self._broker, self._looker, self._every_s, self._bars = broker, Looker(broker), every_s, bars
        self.body = Static("looking ...")
        self._groups: list[dict[str, Any]] | None = None
        """What is leafed through; None while the overview is shown."""
        self._place = 0

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield self.body
        yield Footer()

    def on_mount(self) -> None:
        self.set_interval(self._every_s, self.action_look)
        self.action_look()

    def action_look(self) -> None:
        """Asks for the overview anew, unless groups are shown or the last answer is still to come."""
        if self._groups is None and not any(w.group == "look" and not w.is_finished for w in self.workers):
            self._ask("look", lambda: page(*overview(self._looker.look(), self._bars)))

    def action_overview(self) -> None:
        self._groups = None
        self.action_look()

    def action_groups(self) -> None:
        """The latest ones, as they are now; leafing does not move them."""
        self._groups, self._place = [], 0
        self._ask("groups", self._broker.groups)

    def action_leaf(self, by: int) -> None:
        if self._groups:
            self._place = min(max(self._place + by, 0), len(self._groups) - 1)
            self._show_group()

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        worker = event.worker
        if event.state == WorkerState.ERROR:
            self._show(Text(f"{printable(str(worker.error))}\n\ntrying again every {self._every_s:g} s"))
        elif event.state == WorkerState.SUCCESS and worker.group == "look" and self._groups is None:
            self._show(worker.result)
        elif event.state == WorkerState.SUCCESS and worker.group == "groups" and self._groups is not None:
            self._groups = worker.result
            self._show_group()

    def _ask(self, what: str, call: Callable[[], Any]) -> None:
        self.run_worker(call, group=what, thread=True, exclusive=True, exit_on_error=False)

    def _show_group(self) -> None:
        if self._groups:
            self._show(page(*group_page(self._groups[self._place], self._place + 1, len(self._groups))))
        else:
            self._show(Text("no group has been trained or dropped yet"))

    def _show(self, what: RenderableType) -> None:
        if self.body.is_attached:  # a last answer may come while the screen closes
            self.body.update(what)
