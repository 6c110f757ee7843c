//! Mail to a real server.

use serde_json::json;
use spoke::notify::Occasion;

use super::receivers::Mailpit;
use super::start;

#[tokio::test]
async fn mail_goes_by_starttls_with_a_password_to_a_server_that_is_trusted() {
    let mail = Mailpit::start().await;
    let ca = mail.ca();
    let secrets: &[(&str, &[(&str, &str)])] = &[
        (
            "smtp",
            &[("username", "fleet"), ("password", "right"), ("ca.crt", &ca)],
        ),
        (
            "wrong",
            &[
                ("username", "fleet"),
                ("password", "not-this-one"),
                ("ca.crt", &ca),
            ],
        ),
        ("unknown", &[("username", "fleet"), ("password", "right")]),
    ];
    let running = start(secrets);
    let email = |secret: &str| {
        json!({ "email": { "smtpServer": format!("localhost:{}", mail.smtp), "from": "Backups <fleet@example.org>",
                           "to": "ops@example.org, oncall@example.org", "credentialsSecretRef": { "name": secret } } })
    };
    running.publish("1", Occasion::Failure, email("smtp"));
    running.until("email", "sent", 1).await;
    let message = mail.only_message().await;
    assert_eq!(message["Subject"], "shop/orders - Backup Failed");
    assert_eq!(message["From"]["Address"], "fleet@example.org");
    let to: Vec<&str> = message["To"]
        .as_array()
        .unwrap()
        .iter()
        .map(|to| to["Address"].as_str().unwrap())
        .collect();
    assert_eq!(to, ["ops@example.org", "oncall@example.org"]);
    assert!(
        message["Text"]
            .as_str()
            .unwrap()
            .contains("ResticFailed: the message"),
        "{message:#}"
    );
    running.publish("2", Occasion::Failure, email("wrong"));
    running.until("email", "failed", 1).await;
    running.publish("3", Occasion::Failure, email("unknown"));
    running.until("email", "failed", 2).await;
    assert_eq!(
        mail.messages().await.len(),
        1,
        "neither a wrong password nor an unknown certificate sends a mail"
    );
}

#[tokio::test]
async fn mail_goes_by_tls_from_the_first_byte() {
    let implicit = Mailpit::start_tls().await;
    let running = start(&[(
        "smtp",
        &[
            ("username", "fleet"),
            ("password", "right"),
            ("ca.crt", &implicit.ca()),
        ],
    )]);
    let server = format!("localhost:{}", implicit.smtp);
    running.publish(
        "1",
        Occasion::Failure,
        json!({ "email": { "smtpServer": server, "from": "a@b", "to": "c@d", "tls": "Implicit", "credentialsSecretRef": { "name": "smtp" } } }),
    );
    running.until("email", "sent", 1).await;
    assert_eq!(implicit.messages().await.len(), 1);
}

#[tokio::test]
async fn mail_goes_in_plain_text_where_the_server_offers_no_more() {
    let running = start(&[]);
    let plain = Mailpit::start_plain().await;
    let email = json!({ "email": { "smtpServer": format!("127.0.0.1:{}", plain.smtp), "from": "a@b", "to": "c@d", "subject": "Night" } });
    running.publish("4", Occasion::Success, email);
    running.until("email", "sent", 1).await;
    assert_eq!(plain.only_message().await["Subject"], "Night");
}
