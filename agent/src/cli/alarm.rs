//! `agentctl alarm`: what the members have raised, and clearing it.

use clap::Subcommand;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::alarm_request::AlarmAction;

use super::Session;
use super::error::CliError;
use super::format::columns::columns;
use super::format::{self, Format, fields, json};

#[derive(Debug, Subcommand)]
pub(super) enum AlarmCommand {
    /// Alarms that are raised
    #[command(
        after_help = "NOSPACE: the store is full, puts are refused until something is deleted and compacted.\n\
                      CORRUPT: a member's store differs from the others': replace it.\n\n\
                      Example:\n  agentctl alarm list"
    )]
    List,
    /// Clear all alarms; what raised them raises them again if it is still there
    #[command(after_help = "Example:\n  agentctl alarm disarm")]
    Disarm,
}

impl AlarmCommand {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let mut response = session.client.alarms().await?;
        if matches!(self, Self::Disarm) {
            let raised = std::mem::take(&mut response.alarms);
            for alarm in raised {
                let request = pb::AlarmRequest {
                    action: AlarmAction::Deactivate.into(),
                    member_id: alarm.member_id,
                    alarm: alarm.alarm,
                };
                let cleared = session.client.set_alarm(request).await?;
                response.header = cleared.header;
                response.alarms.extend(cleared.alarms);
            }
        }
        if session.format == Some(Format::Table) {
            return format::write(table(&response.alarms).as_bytes());
        }
        session.show(&response, json::alarms, fields::alarms, |out, answer, _| {
            out.extend_from_slice(lines(&answer.alarms).as_bytes());
        })
    }
}

/// etcdctl's, its last blank included.
fn lines(alarms: &[pb::AlarmMember]) -> String {
    let line = |alarm: &pb::AlarmMember| {
        format!(
            "memberID:{} alarm:{} \n",
            alarm.member_id,
            alarm.alarm().as_str_name()
        )
    };
    alarms.iter().map(line).collect()
}

fn table(alarms: &[pb::AlarmMember]) -> String {
    let rows: Vec<_> = alarms
        .iter()
        .map(|alarm| {
            [
                format!("{:x}", alarm.member_id),
                alarm.alarm().as_str_name().to_owned(),
            ]
        })
        .collect();
    columns(["MEMBER", "ALARM"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_are_etcdctls() {
        let alarms = [pb::AlarmMember {
            member_id: 8,
            alarm: pb::AlarmType::Nospace.into(),
        }];
        assert_eq!(lines(&alarms), "memberID:8 alarm:NOSPACE \n");
        assert_eq!(table(&alarms), "MEMBER  ALARM\n8       NOSPACE\n");
        let response = pb::AlarmResponse {
            header: None,
            alarms: alarms.to_vec(),
        };
        assert_eq!(
            json::alarms(&response).to_string(),
            r#"{"header":{},"alarms":[{"memberID":8,"alarm":1}]}"#
        );
    }
}
