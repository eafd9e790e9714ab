//! The program on real servers, when all goes well, and when it says at once that it cannot.

mod start_up;
mod stop;
