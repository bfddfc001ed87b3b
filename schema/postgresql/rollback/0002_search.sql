-- Takes the search index away; no row of a user is lost, and `dal schema up` with `dal schema rebuild-search` brings it back.
DROP TABLE message_search;
