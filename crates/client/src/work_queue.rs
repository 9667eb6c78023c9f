//! Keys to work on: each once at a time, coalesced, with per-key back-off (CTL-2).
