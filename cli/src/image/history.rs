//! `lamel history`

use anyhow::Result;
use jiff::Timestamp;
use lamel_image::manifest::History;
use lamel_image::platform::Platform;
use lamel_image::store::{Image, Store};
use serde_json::{Value, json};

use super::StoreArgs;
use crate::output::human;
use crate::output::print;
use crate::output::template::Template;

/// Characters of an instruction that are shown, as Docker does.
const SHOWN: usize = 45;

/// Show how an image was made, the last step first
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// `json`, one object a line, or a template such as '{{.CreatedBy}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show whole ids and instructions
    #[arg(long)]
    no_trunc: bool,
    /// Print the ids alone
    #[arg(short, long, conflicts_with = "format")]
    quiet: bool,
    /// Of an image for several platforms, the one for this [default: this host's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// A name or an id of the image
    #[arg(value_name = "REF")]
    image: String,
}

/// Shows it.
pub(crate) fn run(args: &Args) -> Result<()> {
    let store = args.store.open()?;
    let (_, image) = super::store::find(&store, &args.image, args.platform.as_ref())?;
    let steps = steps(&store, &image, !args.no_trunc);
    let text = match args.format.as_deref() {
        _ if args.quiet => "{{.ID}}",
        Some("json") => return print(steps.iter().map(|step| step.to_string().into_bytes())),
        Some("table") | None => "table {{.Image}}\\t{{.Created}}\\t{{.CreatedBy}}\\t{{.Size}}\\t{{.Comment}}",
        Some(text) => text,
    };
    let template = Template::parse(text)?;
    let lines = steps.iter().map(|step| template.render(step)).collect::<Result<Vec<_>>>()?;
    if !template.table {
        return print(lines.into_iter().map(String::into_bytes));
    }
    let cells = |line: &String| line.split('\t').map(str::to_owned).collect();
    let table: Vec<Vec<String>> = [template.header("IMAGE ID")].iter().chain(&lines).map(cells).collect();
    print(human::columns(&table))
}

/// Text of an image as a terminal may see it, on one line.
fn printable(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// The steps of an image's making, the last one first.
fn steps(store: &Store, image: &Image, short: bool) -> Vec<Value> {
    let now = Timestamp::now();
    let mut layers = image.layers();
    // An image that does not say how it was made has its layers all the same.
    let unsaid = vec![History::default(); if image.config.history.is_empty() { image.diff_ids().len() } else { 0 }];
    let history = image.config.history.iter().chain(&unsaid);
    let mut steps: Vec<Value> = history
        .map(|step| {
            let layer = if step.empty_layer { None } else { layers.next() };
            let size = layer.map_or(0, |layer| store.layer_size(&layer.diff_id).unwrap_or(layer.size));
            let created = human::timestamp(step.created.as_deref());
            let by = printable(&step.created_by);
            let shown = if short && by.chars().count() > SHOWN {
                by.chars().take(SHOWN - 1).chain(['…']).collect()
            } else {
                by
            };
            json!({
                "Image": "<missing>",
                "ID": "<missing>",
                "Created": created.map_or_else(|| "N/A".to_owned(), |created| human::ago(created, now)),
                "CreatedSince": created.map_or_else(|| "N/A".to_owned(), |created| human::ago(created, now)),
                "CreatedAt": step.created.clone().unwrap_or_default(),
                "CreatedBy": shown,
                "Size": human::size(size),
                "Comment": printable(&step.comment),
                "Layer": layer.map(|layer| layer.diff_id),
            })
        })
        .collect();
    // Only the whole has a name.
    if let Some(Value::Object(last)) = steps.last_mut() {
        let id = if short { image.id().short() } else { image.id().to_string() };
        for key in ["Image", "ID"] {
            last.insert(key.to_owned(), id.clone().into());
        }
    }
    steps.reverse();
    steps
}
