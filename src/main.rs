//! The `stonechat` command.

/// A message makes and drops some hundred small things, in several threads and between the long-lived
/// ones of a thousand conversations: a quarter of the time went into glibc's search for room.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    stonechat::cli::main()
}
