//! `corelane arena show`: the entries of the arenas of a data directory, or of
//! `corelane.arena.dir`, without changing them.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use crate::storage::{ArenaListing, Listings, list_arenas};

#[derive(Subcommand)]
pub(super) enum ArenaCommand {
    /// List the batches that arenas hold for the next start; nothing is changed
    Show {
        /// A data directory (of log.dirs), whose arenas are found wherever they are, or the
        /// directory of corelane.arena.dir
        directory: PathBuf,
    },
}

/// Exit code 0, or 1 with one line on stderr.
pub(super) fn main(command: ArenaCommand) -> ExitCode {
    let ArenaCommand::Show { directory } = command;
    let outcome = list_arenas(&directory).and_then(|listings| print(&mut io::stdout().lock(), &directory, &listings));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "corelane: {}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}

fn print(out: &mut impl Write, directory: &std::path::Path, listings: &Listings) -> io::Result<()> {
    for (folder, why) in &listings.away {
        writeln!(out, "{}\n  holds arenas of {} and cannot be read: {why}", folder.display(), directory.display())?;
    }
    if listings.arenas.is_empty() && listings.away.is_empty() {
        return writeln!(out, "{} holds no arena", directory.display());
    }
    listings.arenas.iter().try_for_each(|listing| print_one(out, listing))
}

fn print_one(out: &mut impl Write, listing: &ArenaListing) -> io::Result<()> {
    writeln!(out, "{}", listing.path.display())?;
    match &listing.owner {
        Ok((identity, shard)) => writeln!(
            out,
            "  shard {shard} of cluster {}, directory {}, boot {}",
            identity.cluster, identity.directory, identity.boot
        )?,
        Err(why) => writeln!(out, "  cannot be taken over: {why}")?,
    }
    if !listing.held.is_empty() {
        writeln!(out, "  {:<36} {:>9} {:>20} {:>10} {:>8}", "topic id", "partition", "segment", "position", "bytes")?;
    }
    for held in &listing.held {
        let (key, bytes) = (held.partition, held.bytes);
        writeln!(
            out,
            "  {:<36} {:>9} {:>20} {:>10} {bytes:>8}",
            key.topic, key.partition, held.segment, held.position
        )?;
    }
    for (index, why) in &listing.damaged {
        writeln!(out, "  entry {index} is damaged: {why}")?;
    }
    let bytes: u64 = listing.held.iter().map(|held| held.bytes).sum();
    writeln!(out, "  {} chunk(s) with {bytes} bytes to write", listing.held.len())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_arenas_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut out = Vec::new();
        print(&mut out, dir.path(), &list_arenas(dir.path()).unwrap()).unwrap();
        assert!(String::from_utf8(out).unwrap().contains("holds no arena"));
    }
}
