"""The version, which is Stonechat's."""

VERSION = "0.1.0"
