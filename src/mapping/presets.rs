//! The mappings that are built in: `mappings/*.jq`.

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// Its program, without what all of them share.
    text: &'static str,
}

macro_rules! presets {
    ($($name:literal),+ $(,)?) => {
        /// All of them, by their names.
        pub const PRESETS: &[Preset] =
            &[$(Preset { name: $name, text: include_str!(concat!("../../mappings/", $name, ".jq")) }),+];
    };
}

presets!("commercetools", "dapr", "debezium-outbox", "magento", "shopify", "woocommerce");

/// What they share.
const COMMON: &str = include_str!("../../mappings/common.jq");
/// The line of it that says what an order is called, of parts that it defines before.
const ORDER_ID: &str = r#"def order_id: "\(id)";"#;

/// Why there is no such program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPreset {
    /// None has this name.
    #[error("there is no built-in mapping {0:?}; there are {names}", names = names())]
    Unknown(String),
    /// The template of ids is not one.
    #[error(
        "{0:?} is no template of ids: expected text with {{id}} in it, and maybe {{shop}}, as in {{shop}}-{{id}}"
    )]
    Template(String),
}

fn names() -> String {
    PRESETS.iter().map(|preset| preset.name).collect::<Vec<_>>().join(", ")
}

/// The whole program of the one with this name, with ids made by a template where one is given.
///
/// # Errors
/// [`NoPreset`] when there is no such.
pub fn preset(name: &str, id_template: Option<&str>) -> Result<String, NoPreset> {
    let found = PRESETS.iter().find(|preset| preset.name == name);
    let Preset { text, .. } = found.ok_or_else(|| NoPreset::Unknown(name.to_owned()))?;
    let common = match id_template {
        None => COMMON.to_owned(),
        Some(template) => COMMON.replace(ORDER_ID, &order_id(template)?),
    };
    Ok(format!("{common}\n{text}"))
}

impl Preset {
    /// What it reads: the first line of its program.
    #[must_use]
    pub fn summary(&self) -> &'static str {
        self.text.lines().next().unwrap_or_default().trim_start_matches("# ")
    }
}

/// A template as the definition that makes ids of it.
fn order_id(template: &str) -> Result<String, NoPreset> {
    let wrong = || NoPreset::Template(template.to_owned());
    let mut text = String::new();
    let mut rest = template;
    let mut has_id = false;
    while let Some(start) = rest.find(['{', '}', '"', '\\']) {
        text.push_str(&rest[..start]);
        rest = &rest[start..];
        if let Some(after) = rest.strip_prefix("{id}") {
            text.push_str(r"\(id)");
            (rest, has_id) = (after, true);
        } else if let Some(after) = rest.strip_prefix("{shop}") {
            text.push_str(r"\(shop_of_id)");
            rest = after;
        } else {
            return Err(wrong());
        }
    }
    text.push_str(rest);
    if !has_id || text.chars().any(char::is_control) {
        return Err(wrong());
    }
    Ok(format!("def order_id: \"{text}\";"))
}
