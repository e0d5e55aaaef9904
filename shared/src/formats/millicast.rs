//! `millicast`: as Dolby.io Streaming (Millicast) sends its webhooks.
//!
//! From the platform's documentation and its sample receiver
//! (<https://github.com/millicast/samples-millicast-webhooks>): `{"type","event","timestamp","data"}`, the time
//! that of the sending in milliseconds, signed by HMAC-SHA1 with the secret's decoded bytes. A thumbnail is
//! sent as the JPEG itself, described in headers. Nothing is retried.
//!
//! Ours: which attributes of an event a thumbnail's headers come from, and that 410 disables the webhook.

use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use serde_json::value::RawValue;
use sha1::Sha1;

use super::parts::{JSON, extension, json_data, subject, to_json};
use super::{Outgoing, Request, Retries, Rules, Signing, Unsendable};
use crate::delivery::Verdict;
use crate::event::Data;

/// The category of events that carry a picture.
const THUMBNAIL: &str = "thumbnail";
const JPEG: &str = "image/jpeg";

pub(super) const RULES: Rules = Rules {
    name: "millicast",
    retries: Retries::Fixed(&[]),
    signing: Signing::SingleHmac,
    rate_limit: None,
    prepare,
    judge: Verdict::by_status_alone,
};

#[derive(Serialize)]
struct Envelope<'a> {
    r#type: &'a str,
    event: &'a str,
    timestamp: i64,
    data: &'a RawValue,
}

fn prepare(outgoing: &Outgoing<'_>) -> Result<Request, Unsendable> {
    let event = outgoing.event;
    let mut request = if event.event_type.category() == THUMBNAIL {
        thumbnail(outgoing)?
    } else {
        let body = to_json(&Envelope {
            r#type: event.event_type.category(),
            event: event.event_type.operation(),
            timestamp: now_ms(outgoing),
            data: json_data(event)?,
        });
        Request { headers: vec![("content-type", JSON.to_owned())], event_headers: Vec::new(), body }
    };
    request.headers.push(("x-millicast-signature", signature(outgoing, &request.body)?));
    Ok(request)
}

fn thumbnail(outgoing: &Outgoing<'_>) -> Result<Request, Unsendable> {
    let event = outgoing.event;
    let jpeg = match &event.data {
        Data::Binary(bytes) if is_jpeg(event.datacontenttype.as_deref()) => bytes.clone(),
        Data::Binary(_) => {
            return Err(Unsendable::IsNot { attribute: "datacontenttype", needed: JPEG });
        }
        Data::Json(_) => return Err(Unsendable::IsNot { attribute: "data", needed: "a JPEG" }),
        Data::Absent => return Err(Unsendable::Lacks("data")),
    };
    let headers = vec![
        ("content-type", JPEG.to_owned()),
        ("x-millicast-timestamp", now_ms(outgoing).to_string()),
        ("x-millicast-feed-id", extension(event, "feedid")?.into_owned()),
        ("x-millicast-stream-id", subject(event)?.to_owned()),
        ("x-millicast-token-id", extension(event, "tokenid")?.into_owned()),
    ];
    Ok(Request { headers, event_headers: Vec::new(), body: jpeg })
}

fn is_jpeg(media_type: Option<&str>) -> bool {
    let essence = media_type.and_then(|text| text.split(';').next()).unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(JPEG)
}

fn now_ms(outgoing: &Outgoing<'_>) -> i64 {
    (outgoing.now.unix_timestamp_nanos() / 1_000_000) as i64
}

/// One signature, by the newest secret.
fn signature(outgoing: &Outgoing<'_>, body: &[u8]) -> Result<String, Unsendable> {
    let key =
        outgoing.secrets.iter().find_map(|secret| secret.symmetric_key()).ok_or(Unsendable::NoSecret)?;
    let mut mac = Hmac::<Sha1>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(body);
    Ok(format!("sha1={}", hex::encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use time::macros::datetime;

    use super::super::Format;
    use super::super::conformance::{outgoing, sample};
    use super::*;
    use crate::signature::{Scheme, Secret};

    /// The platform's own line, byte for byte.
    const FEEDS_STARTED: &str = concat!(
        r#"{"type":"feeds","event":"started","timestamp":1638463486489,"data":{"#,
        r#""feedId":"369e4a86-f937-4254-bd9f-99dc484d2bd6","accountId":"ZG6NWV","name":"sample_stream","#,
        r#""streamId":"ZG6NWV/sample_stream","started":1638463486359,"active":true}}"#,
    );

    #[test]
    fn the_platforms_own_line_and_the_known_signature_over_it_come_out() {
        let secret: Secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=".parse().unwrap();
        let event = sample("feeds.started");
        let sent_at = datetime!(2021-12-02 16:44:46.489 UTC);
        let outgoing = Outgoing { secrets: &[secret], now: sent_at, ..outgoing(&event) };
        let request = Format::Millicast.prepare(&outgoing).unwrap();
        assert_eq!(request.body, Bytes::from_static(FEEDS_STARTED.as_bytes()));
        let signature = "sha1=dfde8e23a8c06e6c522a67d50fe7412283f653f9";
        assert_eq!(request.headers[1], ("x-millicast-signature", signature.to_owned()));
    }

    #[test]
    fn the_newest_secret_signs_alone_and_without_one_nothing_is_sent() {
        let event = sample("feeds.started");
        let (new, old) = (Secret::generate(Scheme::V1), Secret::generate(Scheme::V1));
        let header = |secrets: &[Secret]| {
            let outgoing = Outgoing { secrets, ..outgoing(&event) };
            prepare(&outgoing).map(|request| request.headers[1].1.clone())
        };
        assert_eq!(header(&[new.clone(), old]), header(&[new]));
        assert_eq!(header(&[Secret::generate(Scheme::V1a)]), Err(Unsendable::NoSecret));
        assert_eq!(header(&[]), Err(Unsendable::NoSecret));
    }

    #[test]
    fn a_thumbnail_is_a_jpeg_with_all_of_its_headers_or_is_not_sent() {
        let whole = sample("thumbnail.captured");
        let error = |change: &dyn Fn(&mut crate::event::Event)| {
            let mut event = whole.clone();
            change(&mut event);
            prepare(&outgoing(&event)).unwrap_err().to_string()
        };
        let without = |name: &str| error(&|event| event.extensions.retain(|(key, _)| key != name));
        assert!(prepare(&outgoing(&whole)).is_ok());
        for (error, attribute) in [
            (error(&|event| event.subject = None), "`subject`"),
            (without("feedid"), "`feedid`"),
            (without("tokenid"), "`tokenid`"),
            (error(&|event| event.datacontenttype = Some("image/png".to_owned())), "`datacontenttype`"),
            (error(&|event| event.data = Data::Json(Bytes::from_static(b"{}"))), "`data`"),
        ] {
            assert!(error.contains(attribute), "{error}");
        }
    }
}
