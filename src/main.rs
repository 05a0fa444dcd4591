//! The `stonechat` command.

/// Processing a message allocates and frees some hundred small objects, on several threads and
/// between the long-lived objects of a thousand conversations. With glibc's allocator this took a
/// quarter of the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    stonechat::cli::main()
}
