"""Our own blob stores, bare and in their layers, under the kit that is shipped for everybody else's."""

from __future__ import annotations

import pytest

from dal.blobs.base import BlobStore
from dal.testing import BlobStoreConformance

#: What a test server cannot do, though what it stands for can. Each of these tests runs on the other server.
LACKING = {
    ("r2", "test_a_signed_get_offers_a_download_under_any_name"): "Miniflare ignores response-content-disposition",
    ("rclone", "test_a_key_may_be_the_beginning_of_another"): "rclone serves a tree of directories",
    ("rclone", "test_a_part_sent_again_takes_the_place_of_the_first"): "rclone writes parts on as they come",
    ("rclone", "test_an_upload_is_of_one_key"): "rclone looks at the id alone",
    # Shown with a plain client: one answer in thirty has the length of one version and the bytes of another.
    ("rclone", "test_readers_of_a_blob_that_is_replaced_see_one_or_the_other"): "rclone mixes versions in one answer",
}


class TestBlobStores(BlobStoreConformance):
    """The whole kit, on each of our blob stores."""

    @pytest.fixture
    def store(self, request: pytest.FixtureRequest, subject: str, store: BlobStore) -> BlobStore:
        why = LACKING.get((subject.removeprefix("cached-"), request.node.originalname))
        if why is not None:
            pytest.skip(why)
        return store
