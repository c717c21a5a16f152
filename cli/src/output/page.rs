//! What the HTML pages share: each is one file that fetches nothing, readable in light and in dark.

/// How all of them look.
const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8886}\
body{font:15px/1.5 system-ui,sans-serif;max-width:900px;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.6rem;margin-bottom:0}h2{font-size:1.15rem;margin:2.2rem 0 .2rem}h3{font-size:1rem;margin:1rem 0 0}\
p{margin:.2rem 0}.quiet{opacity:.7;font-size:.9rem}.bad{color:#dc2626}\
table{border-collapse:collapse;font-size:.85rem}td,th{padding:.2rem .6rem;border-bottom:1px solid var(--line);\
text-align:left;overflow-wrap:anywhere}td.n{text-align:right;white-space:nowrap}code{overflow-wrap:anywhere}";

/// A page up to what it shows; `style` is its own.
pub(crate) fn begin(title: &str, style: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
         script-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n<style>{STYLE}{style}</style>\n"
    )
}

/// Text as it may stand in a page.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// JSON as it may stand in a `script` of a page: nothing in it ends that, or begins a comment.
pub(crate) fn embed(value: &serde_json::Value) -> String {
    value.to_string().replace('<', "\\u003c").replace('>', "\\u003e")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escape("<a b=\"&\">"), "&lt;a b=&quot;&amp;&quot;&gt;");
        let hostile = serde_json::json!(["</script><!--", "\u{2028}"]);
        assert!(!embed(&hostile).contains(['<', '>']));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&embed(&hostile)).unwrap(), hostile);
        assert!(begin("<b>", "").contains("<title>&lt;b&gt;</title>"));
    }
}
