//! Runs a controller: keys from informers, one reconcile a key at a time, retries with back-off.
