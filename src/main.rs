//! Arguments to commands, nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    stock_verifier::cli::main()
}
