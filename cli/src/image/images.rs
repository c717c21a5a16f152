//! `lamel images`

use anyhow::{Context as _, Result, bail};
use glob::{MatchOptions, Pattern};
use jiff::Timestamp;
use lamel_image::platform::Platform;
use lamel_image::store::{Image, Named, Store};
use serde_json::{Value, json};

use super::StoreArgs;
use crate::output::print;
use crate::output::template::Template;
use crate::output::{filter, human};

/// List images
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// reference=PATTERN, dangling=true|false, label=KEY[=VALUE], before=REF or since=REF; what is
    /// given twice need fit once, different ones all
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<Filter>,
    /// `json`, one object a line, or a template such as '{{.Repository}}:{{.Tag}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Print the ids alone
    #[arg(short, long, conflicts_with = "format")]
    quiet: bool,
    /// Show whole ids
    #[arg(long)]
    no_trunc: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Taken for the sake of scripts: all images are always listed
    #[arg(short, long, hide = true)]
    all: bool,
    /// These alone; the same as --filter reference=
    #[arg(value_name = "PATTERN")]
    pattern: Option<String>,
}

/// What `--filter` asks for.
#[derive(Clone, Debug)]
enum Filter {
    Reference(Pattern),
    Dangling(bool),
    Label(String, Option<String>),
    Before(String),
    Since(String),
}

impl std::str::FromStr for Filter {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (key, value) = text.split_once('=').context("a filter is KEY=VALUE")?;
        match key {
            "reference" => Ok(Self::Reference(Pattern::new(value)?)),
            "dangling" => match value {
                "true" | "1" => Ok(Self::Dangling(true)),
                "false" | "0" => Ok(Self::Dangling(false)),
                _ => bail!("dangling is true or false"),
            },
            "label" => Ok(match value.split_once('=') {
                Some((key, value)) => Self::Label(key.to_owned(), Some(value.to_owned())),
                None => Self::Label(value.to_owned(), None),
            }),
            "before" => Ok(Self::Before(value.to_owned())),
            "since" | "after" => Ok(Self::Since(value.to_owned())),
            _ => bail!("no filter {key:?}; there are: reference dangling label before since"),
        }
    }
}

/// An image as it is listed.
struct Row {
    named: Named,
    /// Missing if it is for other platforms alone, or damaged.
    image: Option<Image>,
    created: Option<Timestamp>,
    size: u64,
}

/// Lists.
pub(crate) fn run(args: &Args) -> Result<()> {
    let store = args.store.open()?;
    let mut filters = args.filter.clone();
    if let Some(pattern) = &args.pattern {
        filters.push(Filter::Reference(Pattern::new(pattern)?));
    }
    let mut rows = Vec::new();
    for named in store.images()? {
        let row = row(&store, named);
        if fits(&store, &filters, &row)? {
            rows.push(row);
        }
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.created));
    let now = Timestamp::now();
    let short = !args.no_trunc;
    if args.quiet {
        let mut seen = std::collections::HashSet::new();
        let ids = rows.iter().map(|row| id(row, short)).filter(|id| seen.insert(id.clone()));
        return print(ids.map(String::into_bytes));
    }
    match args.format.as_deref() {
        Some("json") => print(rows.iter().map(|row| fields(row, now, false).to_string().into_bytes())),
        Some("table") | None => {
            let digests = if args.digests { "{{.Digest}}\\t" } else { "" };
            let text = format!(
                "table {{{{.Repository}}}}\\t{{{{.Tag}}}}\\t{digests}{{{{.ID}}}}\\t{{{{.CreatedSince}}}}\\t{{{{.Size}}}}"
            );
            render(&rows, &text, now, short)
        }
        Some(text) => render(&rows, text, now, short),
    }
}

fn render(rows: &[Row], text: &str, now: Timestamp, short: bool) -> Result<()> {
    let template = Template::parse(text)?;
    let lines = rows.iter().map(|row| template.render(&fields(row, now, short))).collect::<Result<Vec<_>>>()?;
    if !template.table {
        return print(lines.into_iter().map(String::into_bytes));
    }
    let cells = |line: &String| line.split('\t').map(str::to_owned).collect();
    let table: Vec<Vec<String>> = [template.header("IMAGE ID")].iter().chain(&lines).map(cells).collect();
    print(human::columns(&table))
}

fn row(store: &Store, named: Named) -> Row {
    let image = store.image(&named.descriptor, &Platform::host()).ok();
    let created = image.as_ref().and_then(|image| human::timestamp(image.config.created.as_deref()));
    let size = image.as_ref().map_or(0, |image| size(store, image));
    Row { named, image, created, size }
}

/// Bytes of an image's layers as they are served.
pub(super) fn size(store: &Store, image: &Image) -> u64 {
    image.layers().map(|layer| store.layer_size(&layer.diff_id).unwrap_or(layer.size)).sum()
}

fn id(row: &Row, short: bool) -> String {
    let id = row.image.as_ref().map_or(row.named.descriptor.digest, Image::id);
    if short { id.short() } else { id.to_string() }
}

fn fields(row: &Row, now: Timestamp, short: bool) -> Value {
    let none = || "<none>".to_owned();
    let name = row.named.name.as_ref();
    json!({
        "Repository": name.map_or_else(none, |name| name.familiar_name()),
        "Tag": name.and_then(|name| name.tag()).map_or_else(none, str::to_owned),
        "Digest": row.named.descriptor.digest.to_string(),
        "ID": id(row, short),
        "CreatedAt": row.created.map_or_else(none, |created| created.to_string()),
        "CreatedSince": row.created.map_or_else(none, |created| human::ago(created, now)),
        "Size": human::size(row.size),
        "ReadOnly": row.named.additional,
    })
}

/// Whether an image passes: for each kind of filter, one of those that are given.
fn fits(store: &Store, filters: &[Filter], row: &Row) -> Result<bool> {
    filter::fits(filters, |filter| matches!(filter, Filter::Label(..)), |filter| passes(store, filter, row))
}

fn passes(store: &Store, filter: &Filter, row: &Row) -> Result<bool> {
    let created = |text: &str| -> Result<Option<Timestamp>> {
        let (_, image) = super::store::find(store, text, None)?;
        Ok(human::timestamp(image.config.created.as_deref()))
    };
    Ok(match filter {
        Filter::Reference(pattern) => {
            let options = MatchOptions { require_literal_separator: true, ..MatchOptions::default() };
            row.named.name.as_ref().is_some_and(|name| {
                let tag = name.tag().unwrap_or_default();
                let texts = [name.familiar_name(), name.name()];
                texts
                    .iter()
                    .flat_map(|text| [text.clone(), format!("{text}:{tag}")])
                    .any(|text| pattern.matches_with(&text, options))
            })
        }
        Filter::Dangling(wanted) => row.named.name.is_none() == *wanted,
        Filter::Label(key, value) => {
            let found = row.image.as_ref().and_then(|image| image.config.config.labels.get(key));
            found.is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
        }
        Filter::Before(text) => row.created.is_some() && row.created < created(text)?,
        Filter::Since(text) => row.created.is_some() && row.created > created(text)?,
    })
}
