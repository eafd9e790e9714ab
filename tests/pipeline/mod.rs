//! The program on real servers, when all goes well, and when it says at once that it cannot.

mod adjustments;
mod backlog;
mod bad_records;
mod balance;
mod contract;
mod from_0_1;
mod groups;
mod levels;
mod order_life;
mod reaching;
mod replicas;
mod secrets;
mod security;
mod settings;
mod start_up;
mod stop;
mod topics;
