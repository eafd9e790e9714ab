//! A new migration must rebuild the program that carries it; cargo does not see that by itself.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
