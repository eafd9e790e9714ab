//! The program on real servers, when all goes well.
