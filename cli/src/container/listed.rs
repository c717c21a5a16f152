//! A container in a list: the fields that `--format` of `lamel ps` has.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::record::Record;
use super::settings::{Port, Settings};
use super::state::{State, Status};
use crate::output::human;

/// Characters of a command that a table shows.
const COMMAND_LEN: usize = 20;

/// A container, looked at.
pub(super) struct Listed {
    pub(super) record: Record,
    pub(super) state: State,
    /// Bytes of its upper layer, and of its image; if they were asked for.
    pub(super) size: Option<(u64, u64)>,
}

impl Listed {
    /// Its fields, in docker's words. `whole`: nothing is cut off.
    pub(super) fn fields(&self, now: Timestamp, whole: bool) -> Value {
        let settings = &self.record.settings;
        let command = settings.command();
        let cut = command.chars().count() > COMMAND_LEN && !whole;
        let command = if cut {
            format!("\"{}…\"", command.chars().take(COMMAND_LEN - 1).collect::<String>())
        } else {
            format!("\"{command}\"")
        };
        let labels: Vec<String> = settings.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let mounts: Vec<&str> = settings.volumes.iter().map(|volume| volume.name.as_str()).collect();
        json!({
            "ID": if whole { &settings.id } else { settings.short_id() },
            "Image": settings.image_name(),
            "Command": command,
            "CreatedAt": settings.created.to_string(),
            "CreatedSince": human::ago(settings.created, now),
            "RunningFor": human::ago(settings.created, now),
            "Status": self.status(now),
            "State": self.state.status.name(),
            "Ports": ports(settings, &self.state),
            "Names": settings.name,
            "Labels": labels.join(","),
            "Label": settings.labels,
            "Mounts": mounts.join(","),
            "Networks": settings.network,
            "LocalVolumes": mounts.len(),
            "Pid": self.state.pid,
            "ExitCode": self.state.exit_code,
            "Size": self.size.map_or_else(
                || "0B".to_owned(),
                |(upper, image)| format!("{} (virtual {})", human::size(upper), human::size(upper.saturating_add(image))),
            ),
        })
    }

    /// `Up 3 seconds`, `Exited (0) 2 minutes ago`.
    fn status(&self, now: Timestamp) -> String {
        let since = |time: Option<Timestamp>| human::ago(time.unwrap_or(now), now);
        let up = || since(self.state.started).trim_end_matches(" ago").to_owned();
        match self.state.status {
            Status::Created => "Created".to_owned(),
            Status::Running => match &self.state.health {
                Some(health) if health.status == "starting" => format!("Up {} (health: starting)", up()),
                Some(health) => format!("Up {} ({})", up(), health.status),
                None => format!("Up {}", up()),
            },
            Status::Paused => format!("Up {} (Paused)", up()),
            Status::Restarting => format!("Restarting ({}) {}", self.state.exit_code, since(self.state.finished)),
            Status::Exited => {
                // One whose monitor was killed did not tell when it ended.
                let end = self.state.finished.or(self.state.started);
                format!("Exited ({}) {}", self.state.exit_code, since(end))
            }
        }
    }
}

/// `0.0.0.0:8080->80/tcp, 443/tcp`, while it runs.
fn ports(settings: &Settings, state: &State) -> String {
    if !state.status.is_alive() {
        return String::new();
    }
    let published = |port: &Port| {
        let address = if port.address.is_empty() { "0.0.0.0" } else { &port.address };
        format!("{address}:{}->{}/{}", port.host, port.container, port.protocol)
    };
    let mut all: Vec<String> = state.ports.iter().map(published).collect();
    let is_published =
        |exposed: &String| state.ports.iter().any(|port| *exposed == format!("{}/{}", port.container, port.protocol));
    all.extend(settings.exposed.iter().filter(|exposed| !is_published(exposed)).cloned());
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::settings::tests::plain;
    use super::super::state::Health;
    use super::*;

    #[test]
    fn statuses_are_docker_s() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        let then = Some("2026-01-31T11:58:00Z".parse().unwrap());
        let state = |status| State { status, started: then, finished: then, exit_code: 3, ..State::default() };
        let healthy = Some(Health { status: "healthy".to_owned(), ..Health::default() });
        for (state, text) in [
            (state(Status::Created), "Created"),
            (state(Status::Running), "Up 2 minutes"),
            (State { health: healthy, ..state(Status::Running) }, "Up 2 minutes (healthy)"),
            (state(Status::Paused), "Up 2 minutes (Paused)"),
            (state(Status::Exited), "Exited (3) 2 minutes ago"),
            (state(Status::Restarting), "Restarting (3) 2 minutes ago"),
        ] {
            let mut settings = plain(&"ab".repeat(32), "x");
            settings.cmd = vec!["sh".to_owned(), "-c".to_owned(), "a long command line".to_owned()];
            settings.exposed = vec!["80/tcp".to_owned(), "443/tcp".to_owned()];
            let ports = vec![Port { address: String::new(), host: 8080, container: 80, protocol: "tcp".to_owned() }];
            let state = State { ports, ..state };
            let listed = Listed { record: Record::new("/nowhere".into(), settings), state, size: Some((1000, 500)) };
            let fields = listed.fields(now, false);
            assert_eq!(fields["Status"], text);
            assert_eq!(fields["Command"], "\"sh -c a long comman…\"");
            assert_eq!(fields["Size"], "1kB (virtual 1.5kB)");
            let ports = if listed.state.status.is_alive() { "0.0.0.0:8080->80/tcp, 443/tcp" } else { "" };
            assert_eq!(fields["Ports"], ports);
        }
    }
}
