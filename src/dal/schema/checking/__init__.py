"""Whether files and databases are right: trials on scratch databases, comparison, questions and plans."""
