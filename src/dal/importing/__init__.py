"""Loading old chat data: JSON lines of conversations and of user memory, plain or gzip, into any store.

Fast, in constant memory, repeatable and resumable: ids follow from the source, each conversation is written whole or
not at all, what is there already is left alone, and every record that cannot be stored is reported with the reason.
The formats are described in `dal.importing.conversations` and `dal.importing.personas`.
"""

from dal.importing.batches import Format
from dal.importing.document import BadText
from dal.importing.files import import_file
from dal.importing.report import ImportReport, Progress, Refusal

__all__ = ["BadText", "Format", "ImportReport", "Progress", "Refusal", "import_file"]
