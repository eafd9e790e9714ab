//! The program when processes, servers and networks fail.

mod killed;
mod networks;
mod outages;
mod recovery;
mod restarts;
