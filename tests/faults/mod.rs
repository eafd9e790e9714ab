//! The program when processes, servers and networks fail.

mod killed;
mod networks;
mod outages;
mod recovery;
mod topics_made_anew;
