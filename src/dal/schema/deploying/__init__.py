"""Releases: the environments of a project, the phases of one deployment, and what is reported of it."""
