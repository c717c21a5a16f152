//! `lamel ps`

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::Result;
use jiff::Timestamp;
use lamel_image::store::Store;

use super::filter::{self, Filter};
use super::listed::Listed;
use super::record::Record;
use crate::image::StoreArgs;
use crate::output::template::Template;
use crate::output::{human, print};

/// List containers
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
    /// Print the ids alone
    #[arg(short, long)]
    quiet: bool,
    /// The newest one alone, whether it runs or not
    #[arg(short, long)]
    latest: bool,
    /// This many of the newest, whether they run or not
    #[arg(short = 'n', long, value_name = "NUMBER", conflicts_with = "latest")]
    last: Option<usize>,
    /// Cut nothing off
    #[arg(long)]
    no_trunc: bool,
    /// Show how much each has written
    #[arg(short, long)]
    size: bool,
    /// status=, name=, id=, label=, ancestor=, exited=, before=, since=, volume=, network=, health=; what is given
    /// twice need fit once, different ones all
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<Filter>,
    /// `json`, one object a line, or a template such as '{{.Names}}: {{.Status}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Lists.
pub(super) fn run(args: &Args) -> Result<()> {
    let containers = super::containers(&args.store)?;
    let last = if args.latest { Some(1) } else { args.last };
    // A filter of the state speaks of those too that do not run.
    let by_state = args.filter.iter().any(|filter| matches!(filter, Filter::Status(_) | Filter::Exited(_)));
    let all = args.all || last.is_some() || by_state;
    let mut found = Vec::new();
    for record in containers.list()? {
        // Removed meanwhile.
        let Ok(state) = record.state() else { continue };
        let listed = Listed { record, state, size: None };
        if (all || listed.state.status.is_alive()) && filter::fits(&containers, &args.filter, &listed)? {
            found.push(listed);
        }
    }
    found.truncate(last.unwrap_or(usize::MAX));
    let format = args.format.as_deref();
    if args.size || format.is_some_and(|format| format.contains(".Size")) {
        let store = args.store.open()?;
        for listed in &mut found {
            listed.size = Some((written(&listed.record.upper()), image_size(&store, &listed.record)));
        }
    }
    let now = Timestamp::now();
    match format {
        _ if args.quiet => print(found.iter().map(|listed| {
            let settings = &listed.record.settings;
            let id = if args.no_trunc { settings.id.as_str() } else { settings.short_id() };
            id.as_bytes().to_vec()
        })),
        Some("json") => print(found.iter().map(|listed| listed.fields(now, args.no_trunc).to_string().into_bytes())),
        Some("table") | None => {
            let mut text =
                "table {{.ID}}\\t{{.Image}}\\t{{.Command}}\\t{{.CreatedSince}}\\t{{.Status}}\\t{{.Ports}}\\t{{.Names}}"
                    .to_owned();
            if args.size {
                text.push_str("\\t{{.Size}}");
            }
            render(&found, &text, now, args.no_trunc)
        }
        Some(text) => render(&found, text, now, args.no_trunc),
    }
}

fn render(found: &[Listed], text: &str, now: Timestamp, whole: bool) -> Result<()> {
    let template = Template::parse(text)?;
    let lines = found.iter().map(|listed| template.render(&listed.fields(now, whole))).collect::<Result<Vec<_>>>()?;
    if !template.table {
        return print(lines.into_iter().map(String::into_bytes));
    }
    let cells = |line: &String| line.split('\t').map(str::to_owned).collect();
    let table: Vec<Vec<String>> = [template.header("CONTAINER ID")].iter().chain(&lines).map(cells).collect();
    print(human::columns(&table))
}

/// Bytes of a directory's files; what cannot be looked at counts nothing.
pub(super) fn written(dir: &Path) -> u64 {
    let mut seen = HashSet::new();
    let mut todo = vec![dir.to_owned()];
    let mut bytes = 0_u64;
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                todo.push(entry.path());
            } else if seen.insert(meta.ino()) {
                bytes = bytes.saturating_add(meta.size());
            }
        }
    }
    bytes
}

fn image_size(store: &Store, record: &Record) -> u64 {
    let diff_ids = record.settings.image.iter().flat_map(|used| &used.diff_ids);
    diff_ids.filter_map(|diff_id| store.layer_size(diff_id)).sum()
}
