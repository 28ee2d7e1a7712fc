"""Recording and replay as the configuration asks for them: what stands between attempts and the network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from twisted.internet.defer import Deferred, succeed

from llmproxyd.cassettes.folder import Folder, Taken, load
from llmproxyd.cassettes.hiding import Hidden
from llmproxyd.cassettes.matching import Ignored, Library, Recorded
from llmproxyd.cassettes.reading import Unusable
from llmproxyd.config.cassettes import Record, Replay, recorded_to
from llmproxyd.model import WallClock
from llmproxyd.observe.worker import FromThread, Worker
from llmproxyd.pipeline.player import Player
from llmproxyd.pipeline.recorder import Recorder
from llmproxyd.pipeline.sends import Sends
from llmproxyd.pipeline.tape import Tape
from llmproxyd.redaction import Secret
from llmproxyd.wire.wheel import Wheel


class NotUsable(Exception):
    """Recordings cannot be made, or not be answered from; the message says why."""


class Deck:
    """Records, replays, both, or neither.

    :param from_thread: calls a function in the reactor's thread.
    :param secrets: those of the configuration.
    """

    def __init__(
        self,
        record: Record,
        replay: Replay,
        wheel: Wheel,
        wall: WallClock,
        from_thread: FromThread,
        secrets: Iterable[Secret],
    ) -> None:
        self._replay = replay
        self._wheel = wheel
        self._wall = wall
        self._folder = recorded_to(record, replay)
        self._hidden = Hidden(secrets)
        self._player: Player | None = None
        self._tape: Tape | None = None
        self._recorded: frozenset[str] = frozenset()
        if self._folder is not None:
            work = Worker("recordings", from_thread)
            self._tape = Tape(work, self._hidden, wheel, max_files=record.max_files, max_body=record.max_body)

    @property
    def replaying(self) -> bool:
        """Whether recordings answer."""
        return self._replay.folder is not None

    @property
    def providers(self) -> frozenset[str]:
        """Those of which recordings, and nobody else, answer."""
        return self._recorded if self._replay.alone else frozenset()

    def before(self, real: Sends) -> Sends:
        """What attempts are made through.

        :param real: sends to the upstreams.
        :raises NotUsable: there are recordings that cannot be used; all that is wrong with them.
        """
        recording = real if self._tape is None else Recorder(real, self._tape, self._wheel, self._wall)
        replay = self._replay
        if replay.folder is None:
            return recording
        recordings = _recordings(replay.folder)
        self._recorded = frozenset(one.exchange.asked.provider for one in recordings)
        library = Library(recordings, Ignored(replay.ignore))
        otherwise = None if replay.on_miss == "error" else recording
        self._player = Player(library, self._wheel, replay.speed, otherwise)
        return self._player

    def start(self) -> None:
        """Begin to record.

        :raises NotUsable: the folder cannot be written to.
        """
        folder, tape = self._folder, self._tape
        if folder is None or tape is None:
            return
        try:
            tape.open(Folder(folder))
        except Taken:
            raise NotUsable(f"another process records to {folder} already") from None
        except OSError as error:
            raise NotUsable(f"{folder} cannot be recorded to: {error.strerror}") from None

    def stop(self) -> Deferred[None]:
        """Write what waits; fires soon in any case."""
        return succeed(None) if self._tape is None else self._tape.close()

    def learn(self, secrets: Iterable[Secret]) -> None:
        """Keep *secrets* too out of recordings from now on."""
        self._hidden.learn(secrets)

    def notes(self) -> list[str]:
        """What is said at the start."""
        found = []
        replay, player = self._replay, self._player
        if player is not None:
            speed = f"{replay.speed:g} times as fast as it was" if replay.speed else "without waits"
            count = player.state()["recordings"]
            miss = {"error": "an error", "forward": "forwarded", "record": "forwarded and recorded"}
            found.append(
                f"Replaying {count} recordings from {replay.folder}, {speed}; a request without one: "
                f"{miss[replay.on_miss]}." + (" Any key will do." if replay.alone else "")
            )
        if self._folder is not None:
            found.append(f"Recording to {self._folder}.")
        return found

    def state(self) -> Mapping[str, object]:
        """For ``/health/detailed``."""
        found: dict[str, object] = {}
        if self._player is not None:
            found["replaying"] = {"folder": str(self._replay.folder), **self._player.state()}
        if self._tape is not None:
            found["recording"] = {"folder": str(self._folder), **self._tape.state()}
        return found


def _recordings(folder: Path) -> list[Recorded]:
    try:
        return load(folder)
    except FileNotFoundError:
        return []  # it is made when the first one is
    except OSError as error:
        raise NotUsable(f"{folder} cannot be read: {error.strerror}") from None
    except Unusable as error:
        raise NotUsable(f"recordings that cannot be used:\n{error}") from None
