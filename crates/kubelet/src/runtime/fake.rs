//! A runtime that follows a script, for hollow nodes and for tests.
