//! The program when processes, servers and networks fail.

mod clocks;
mod killed;
mod networks;
mod outages;
mod peers;
mod publishing;
mod read_only;
mod recovery;
mod restarts;
mod servers;
mod stopped;
mod topics_made_anew;
