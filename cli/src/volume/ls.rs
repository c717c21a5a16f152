//! `lamel volume ls`

use std::str::FromStr;

use anyhow::{Context as _, Result, bail};

use super::store::{Volume, users};
use crate::container::records::Containers;
use crate::image::StoreArgs;
use crate::output::human::columns;
use crate::output::print;
use crate::output::template::Template;

/// List volumes
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// name=TEXT, label=KEY[=VALUE], dangling=true|false or driver=local; what is given twice need fit
    /// once, different ones all
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<Filter>,
    /// `json`, one object a line, or a template such as '{{.Name}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Print the names alone
    #[arg(short, long, conflicts_with = "format")]
    quiet: bool,
}

/// What `--filter` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    Name(String),
    Label(String, Option<String>),
    Dangling(bool),
    Driver(String),
}

impl FromStr for Filter {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (key, value) = text.split_once('=').context("a filter is KEY=VALUE")?;
        Ok(match key {
            "name" => Self::Name(value.to_owned()),
            "driver" => Self::Driver(value.to_owned()),
            "label" => match value.split_once('=') {
                Some((key, value)) => Self::Label(key.to_owned(), Some(value.to_owned())),
                None => Self::Label(value.to_owned(), None),
            },
            "dangling" => match value {
                "true" | "1" => Self::Dangling(true),
                "false" | "0" => Self::Dangling(false),
                _ => bail!("dangling is true or false"),
            },
            _ => bail!("no filter {key:?}; there are: name label dangling driver"),
        })
    }
}

impl Filter {
    fn passes(&self, volume: &Volume, containers: &Containers) -> Result<bool> {
        Ok(match self {
            Self::Name(text) => volume.about.name.contains(text),
            Self::Driver(driver) => driver == "local",
            Self::Label(key, value) => {
                let found = volume.about.labels.get(key);
                found.is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
            }
            Self::Dangling(wanted) => users(containers, &volume.about.name)?.is_empty() == *wanted,
        })
    }

    /// Whether a volume passes: for each kind of filter one of those that are given, and all labels.
    pub(super) fn fits(filters: &[Self], volume: &Volume, containers: &Containers) -> Result<bool> {
        for filter in filters {
            let kind = std::mem::discriminant(filter);
            let mut same = filters.iter().filter(|other| std::mem::discriminant(*other) == kind);
            let fits = match filter {
                Self::Label(..) => filter.passes(volume, containers)?,
                _ => same
                    .try_fold(false, |fits, other| Ok::<_, anyhow::Error>(fits || other.passes(volume, containers)?))?,
            };
            if !fits {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Lists.
pub(super) fn run(args: &Args) -> Result<()> {
    let (volumes, containers) = super::volumes(&args.store)?;
    let mut found = Vec::new();
    for volume in volumes.list()? {
        if Filter::fits(&args.filter, &volume, &containers)? {
            found.push(volume);
        }
    }
    if args.quiet {
        return print(found.into_iter().map(|volume| volume.about.name.into_bytes()));
    }
    let text = match args.format.as_deref() {
        Some("json") => return print(found.iter().map(|volume| volume.json().to_string().into_bytes())),
        Some("table") | None => "table {{.Driver}}\t{{.VolumeName}}",
        Some(text) => text,
    };
    let template = Template::parse(text)?;
    let line = |volume: &Volume| {
        let mut value = volume.json();
        value["VolumeName"] = volume.about.name.as_str().into();
        template.render(&value)
    };
    let lines = found.iter().map(line).collect::<Result<Vec<_>>>()?;
    if !template.table {
        return print(lines.into_iter().map(String::into_bytes));
    }
    let cells = |line: &String| line.split('\t').map(str::to_owned).collect();
    let rows: Vec<Vec<String>> = [template.header("")].iter().chain(&lines).map(cells).collect();
    print(columns(&rows))
}
