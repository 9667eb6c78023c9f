//! The simulation itself: what its network and disks do, that a seed gives the same to the last byte, and that
//! seeds which have failed once hold.

mod determinism;
mod network;
mod seeds;
