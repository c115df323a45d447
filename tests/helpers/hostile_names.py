"""Names as a study file may have them."""

# What must be shown, and never run: it tries to end an attribute, a script, a comment and an expression of a plot.
HOSTILE = "\"'><script>window.hacked=1</script><img src=x onerror=window.hacked=1><!--{{1}}${1}]"
HOSTILE_ARM = "a');window.hacked=1;('</script><b onclick=window.hacked=1>"
