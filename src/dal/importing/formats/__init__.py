"""Other systems' exports, each turned into conversations as `dal.importing.conversations` reads them.

A format is one small module: how to know its objects, and what a conversation of it becomes. What has a column goes
there; everything else the export says of a chat or a message is kept in its metadata under the key `export`. Roles
are `user`, `assistant`, `system` and `tool`; others stay as they are. Branches become chats of their own
(dal.importing.formats.branches), times are read by dal.importing.formats.times.
"""

from dal.importing.formats.format import FORMATS, Export

__all__ = ["FORMATS", "Export"]
