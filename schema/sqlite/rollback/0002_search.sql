-- Takes the search index away; no row of a user is lost, and `dal search rebuild` brings it back.
DROP TRIGGER message_search_delete;
DROP TABLE message_search;
