from __future__ import annotations

import os
from pathlib import Path

from synapse_stonechat.secret import Token
from tests.fakes import TOKEN, QuietTest


class TokenTest(QuietTest):
    def refused(self, path: Path | str, *parts: str) -> None:
        with self.warning("has no token: ") as logs:
            token = Token(str(path))
        self.assertIsNone(token.value())
        for part in parts:
            self.assertIn(part, logs.output[0])
        self.assertNotIn(TOKEN, logs.output[0])

    def test_what_stonechat_made_is_used(self) -> None:
        self.assertEqual(self.token().value(), TOKEN)

    def test_a_file_that_is_missing_or_no_file_is_said_and_nothing_more(self) -> None:
        self.refused("/nowhere/at/all", "is not there", "registration --with-module")
        self.refused(self.token_file() / "below", "cannot be read", "chgrp matrix-synapse")
        self.refused("/nul\0byte", "cannot be read")
        self.refused("/dev/zero", "is not a file")
        folder = Path(self.mktemp())
        folder.mkdir()
        self.refused(folder, "is not a file")

    def test_a_pipe_in_its_place_is_not_waited_for(self) -> None:
        path = Path(self.mktemp())
        os.mkfifo(path, 0o640)
        self.refused(path, "is not a file")

    def test_a_token_that_others_can_read_is_not_used(self) -> None:
        path = self.token_file()
        path.chmod(0o644)
        self.refused(path, "can be read by others", "chmod 640")

    def test_what_is_no_token_is_not_used(self) -> None:
        for content in ["", "short", "with a space " + "0" * 64, "0" * 300, "ü" * 64, "x" * 10_000]:
            self.refused(self.token_file(content), "holds no token")

    def test_a_file_that_appears_changes_or_goes_is_followed(self) -> None:
        path = self.token_file()
        path.unlink()
        with self.warning("is not there"):
            token = Token(str(path))
            for _ in range(100):
                token.take(token.look())
        path.write_text(TOKEN)
        path.chmod(0o604)
        with self.warning("by others"):
            token.take(token.look())
        path.chmod(0o640)
        with self.assertLogs("synapse_stonechat", "INFO") as logs:
            token.take(token.look())
        self.assertIn("has its token", logs.output[0])
        self.assertEqual(token.value(), TOKEN)
        path.write_text(TOKEN[::-1])
        token.take(token.look())
        self.assertEqual(token.value(), TOKEN[::-1])
        path.unlink()
        with self.warning("is not there"):
            token.take(token.look())
        self.assertIsNone(token.value())
