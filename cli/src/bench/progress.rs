//! What is told while it runs, on standard error.

use std::cell::Cell;
use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar on a terminal, lines elsewhere.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    done: Cell<usize>,
    all: usize,
    quiet: bool,
}

impl Progress {
    /// For so many steps.
    pub(crate) fn new(all: usize, quiet: bool) -> Self {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template("[{elapsed_precise}] {bar:30} {pos}/{len} {msg}");
            ProgressBar::new(all as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, done: Cell::new(0), all, quiet }
    }

    /// Something that is not a step.
    pub(crate) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None if self.quiet => {}
            None => eprintln!("{text}"),
        }
    }

    /// A step is done.
    pub(crate) fn step(&self, workload: &str, backend: &str, round: usize, said: &str) {
        self.done.set(self.done.get() + 1);
        let line = format!("{workload} on {backend}: {said}");
        match &self.bar {
            Some(bar) => {
                bar.inc(1);
                bar.set_message(line.clone());
                if said.starts_with("FAILED") {
                    bar.println(line);
                }
            }
            None if self.quiet => {}
            None => eprintln!("[{}/{}] round {}: {line}", self.done.get(), self.all, round + 1),
        }
    }

    /// Leaves nothing of it on the terminal.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
