#' Write a report on guide calls
#'
#' One HTML page for those who made the screen: the numbers that matter, warnings in words, the pictures, a table of the
#' guides, and a methods paragraph to paste. It holds everything it shows, so that it can be mailed; opening it asks nothing of
#' the network.
#'
#' The page is written under another name in the same folder and renamed when it is complete.
#'
#' @param calls A `guide_calls` of [assign_guides()] or [decide_guides()], of any model; or a SingleCellExperiment,
#'   SummarizedExperiment or Seurat object with calls, see [attached_calls()].
#' @param path The name of the file: one string. The folder it is in must be there.
#' @param ... Must be empty.
#' @param title NULL, or the heading: one string, as the name of the screen. NULL is "Guide calls".
#' @param guides NULL, or the guide table, see [cell_columns()]: `target` becomes a column of the table, controls are marked in
#'   the picture of the cells per guide. NULL is that of `calls`.
#' @param show chr, the guides whose counts are drawn, up to 12. NULL is up to four with a warning and four of those with the
#'   most to the fewest called cells.
#' @inheritParams plot_guide
#' @inheritParams write_calls
#' @return `path`, invisibly. The page is some 0.5 MB, and 2 MB with 10,000 guides.
#' @section Errors:
#'   `kaichi_error_file` for a folder that is missing and a file that is there or cannot be written; `kaichi_error_argument` and
#'   `kaichi_error_names` for what is not as said here; `kaichi_error_package` without ggplot2 or base64enc.
#' @seealso [plot_guide()] and the other pictures, [summary.guide_calls], [write_calls()].
#' @examples
#' calls <- assign_guides(system.file("extdata", "guides.h5ad", package = "kaichi"))
#' if (requireNamespace("ggplot2", quietly = TRUE) && requireNamespace("base64enc", quietly = TRUE)) {
#'   file <- tempfile(fileext = ".html")
#'   guide_report(calls, file, title = "Bundled screen", show = "sgNT_2")
#'   file.size(file)
#'   unlink(file)
#' }
#' @export
guide_report <- function(calls, path = "report.html", ..., title = NULL, guides = NULL, show = NULL, batch = NULL,
                         overwrite = FALSE) {
  check_no_dots("guide_report", ...)
  calls <- pictured_calls(calls)
  need_package("base64enc", "to put pictures into a report")
  check_string(path, "path", "the name of the file, as \"report.html\"")
  if (is.null(title)) title <- "Guide calls"
  check_string(title, "title", "the heading of the report")
  if (!is.logical(overwrite) || length(overwrite) != 1L || is.na(overwrite)) {
    abort("argument", "`overwrite` must be TRUE or FALSE, not ", describe(overwrite), ".")
  }
  path <- path.expand(path)
  if (!dir.exists(dirname(path))) {
    abort("file", "The folder ", quote_names(dirname(path)), " of `path` does not exist. Make it first, with dir.create().")
  }
  if (dir.exists(path)) abort("file", "`path` is ", quote_names(path), ", which is a folder. Give the name of a file.")
  refuse_existing(path, overwrite)

  summary <- summary(calls)
  table <- guide_rows(calls, guides)
  page <- c(
    page_head(title),
    "<header>", paste0("<h1>", html(title), "</h1>"), paste0("<p class=\"lead\">", html(report_lead(calls)), "</p>"),
    "</header>", "<main>",
    report_numbers(calls, summary),
    report_warnings(calls, summary),
    report_pictures(calls, summary, guides, show, batch),
    report_table(summary$guides, if (!is.null(table)) table_column(table, "target")),
    report_methods(calls),
    "</main>", paste0("<script>\n", report_script, "</script>"), "</body>", "</html>"
  )
  write_whole(path, function(file) write_lines(page, file))
  invisible(path)
}

# Text as text, also within the quotes of an attribute.
html <- function(x) {
  x <- enc2utf8(as.character(x))
  for (of in list(c("&", "&amp;"), c("<", "&lt;"), c(">", "&gt;"), c("\"", "&quot;"), c("'", "&#39;"))) {
    x <- gsub(of[1L], of[2L], x, fixed = TRUE)
  }
  x
}

percent <- function(share) ifelse(is.na(share), "unknown", sprintf("%.1f %%", 100 * share))

report_lead <- function(calls) {
  paste0(
    count_of(nrow(calls$counts), "guide"), " in ", count_of(ncol(calls$counts), "cell"), ", called by the model ",
    model_words(calls), " of kaichi ", calls$version, "."
  )
}

# ---- Headline numbers and warnings ----

report_numbers <- function(calls, summary) {
  n <- calls$cells$n_guides_detected
  called <- summary$guides$n_cells_called
  numbers <- list(
    c(percent(mean(n == 1L)), "of the cells have exactly one guide", big(sum(n == 1L))),
    c(percent(summary$share_multiple), "have several guides (or are doublets)", big(sum(n > 1L))),
    c(percent(mean(n == 0L)), "have no guide called", big(sum(n == 0L))),
    c(
      sprintf("%.2f", summary$moi[["called"]]), "guides per cell called (MOI)",
      if (is.na(summary$moi[["expected"]])) "" else sprintf("%.2f expected by the model", summary$moi[["expected"]])
    ),
    c(big(stats::median(called)), "cells per guide (median)", paste("from", big(min(called)), "to", big(max(called)))),
    c(
      if (nrow(calls$pairs) > 0L) big(stats::median(calls$pairs$umi_count)) else "none",
      "UMIs of a called guide in its cell (median)",
      paste(count_of(length(calls$assigned@x), "call"))
    ),
    c(percent(summary$share_ambient), "of the guide UMIs are outside calls: ambient, chimeric or missed", ""),
    c(
      big(length(summary$worst)),
      if (is.null(calls$fits$guide_id)) "guides with a warning (the model fits batches, not guides)" else "guides with a warning",
      ""
    )
  )
  c(
    "<section aria-label=\"Headline numbers\" class=\"numbers\">",
    vapply(numbers, function(one) {
      sprintf(
        "<div><b>%s</b><span>%s</span>%s</div>", html(one[1L]), html(one[2L]),
        if (one[3L] == "") "" else paste0("<small>", html(one[3L]), "</small>")
      )
    }, ""),
    "</section>"
  )
}

# What each warning of the fits means to whoever made the screen.
warning_words <- c(
  "too little to fit" = paste0(
    "Hardly any cell has it, or never more than one UMI: nothing was fitted or called. Was the guide in the library, and ",
    "its sequence in the reference right?"
  ),
  "no signal" = "Its counts look like background only: nothing was called.",
  "fit not converged" = "The fit ran out of iterations. Look at the picture of its counts before trusting its calls.",
  "few cells" = "Called in fewer than 5 cells: too few for most comparisons.",
  "most calls are single UMIs" = "More than half of its calls rest on one UMI: ambient ones look the same. Ask for `min_umi = 2`?",
  "calls are uncertain" = "More than one in five of its calls is expected to be wrong.",
  "overlapping components: most of the signal lies below the cut" =
    "Carriers and background overlap: most cells that carry it are expected to be missed.",
  "background in most cells" = "Ambient in most cells: it may come from many cells that broke, or from plasmid.",
  "present in most cells" = "Called in more than half of all cells: is that the design, or contamination?"
)

report_warnings <- function(calls, summary) {
  n <- calls$cells$n_guides_detected
  fits <- calls$fits
  general <- c(
    if (mean(n == 0L) > 0.5) {
      paste0(
        percent(mean(n == 0L)),
        " of the cells have no guide called. Few reads, weak expression of the guides, or cells that were not selected."
      )
    },
    if (!is.na(summary$share_ambient) && summary$share_ambient > 0.5) {
      "More than half of the guide UMIs lie outside of calls: much ambient or chimeric signal, or many carriers missed."
    },
    if (summary$single_umi_calls > 0L) {
      paste0(
        count_of(summary$single_umi_calls, "call"), " of ", big(length(calls$assigned@x)),
        " rest on a single UMI. min_umi = 2 drops such calls."
      )
    },
    if (is.null(fits$guide_id)) {
      bad <- which(fits$status != "ok")
      if (length(bad) > 0L) paste0("Batch ", fits$batch[bad], ": ", fits$note[bad], ".")
    }
  )
  kinds <- strsplit(ifelse(is.na(summary$guides$warning), "", summary$guides$warning), "; ", fixed = TRUE)
  guide <- rep(summary$guides$guide_id, lengths(kinds))
  by_kind <- split(guide, factor(unlist(kinds), unique(unlist(kinds))))
  of_guides <- vapply(names(by_kind), function(kind) {
    ids <- by_kind[[kind]]
    named <- paste0(html(utils::head(ids, 8L)), collapse = ", ")
    sprintf(
      "<li><b>%s: %s.</b> %s <span class=\"names\">%s%s</span></li>", count_of(length(ids), "guide"), html(kind),
      html(if (kind %in% names(warning_words)) warning_words[[kind]] else ""), named,
      if (length(ids) > 8L) paste0(" and ", big(length(ids) - 8L), " more, see the table") else ""
    )
  }, "")
  items <- c(if (length(general) > 0L) paste0("<li>", html(general), "</li>"), of_guides)
  c(
    "<section><h2>What to look at</h2>",
    if (length(items) == 0L) "<p>No warning: nothing about the calls stands out.</p>" else c(
      "<ul class=\"warnings\">", items, "</ul>"
    ),
    "</section>"
  )
}

# ---- Pictures ----

report_pictures <- function(calls, summary, guides, show, batch) {
  pictures <- list(
    list(
      plot_guides_per_cell(calls),
      paste0(
        "Bars: cells by the guides called in them. Points: what chance would give at this MOI. Many more cells with ",
        "several guides than points say: doublets or ambient calls."
      )
    ),
    list(
      plot_cells_per_guide(calls, guides),
      "How evenly the library is covered. Guides at the bottom have too few cells for comparisons."
    ),
    list(
      plot_signal(calls),
      paste0(
        "UMIs of the (cell, guide) pairs that were called and of those that were not. The further apart, the safer the ",
        "calls."
      )
    ),
    list(plot_confidence(calls), "How sure the calls are, by their UMIs. Yellow is sure, dark is doubtful."),
    list(plot_knee(calls), "Cells ranked by all their guide UMIs. Dark points: ranges in which few cells have a call."),
    list(
      plot_guide_pairs(calls),
      paste0(
        "Pairs of guides that meet in cells, against chance (dashed). High above the line: guides of one construct, or ",
        "clones."
      )
    )
  )
  drawn <- vapply(pictures, function(one) figure(one[[1L]], one[[2L]], 5.4, 3.7), "")
  if (is.null(show)) show <- unique(c(utils::head(summary$worst, 4L), pictured_guides(calls, NULL)))
  if (length(show) > 12L) abort("argument", "`show` names ", length(show), " guides. Give 12 or fewer.")
  fits <- plot_guide(calls, show, batch)
  what <- paste0(
    "Cells by their UMIs of some guides, those with warnings first. Blue bars are the called cells; where the curves of ",
    "background and signal cross, a call is a coin's toss."
  )
  shares <- if (is.null(calls$fits$guide_id)) {
    figure(
      plot_guide(calls, NULL), "What the model fits: the share of the largest guide among the guide UMIs of each cell.", 5.4,
      3.7
    )
  }
  rows <- ceiling(length(show) / ceiling(sqrt(length(show))))
  c(
    "<section><h2>Pictures</h2><div class=\"pictures\">", drawn, shares, "</div>",
    figure(fits, what, 7.6, 1.7 + 1.4 * rows, "wide"), "</section>"
  )
}

# A ggplot as <figure>, its picture within the page.
figure <- function(plot, caption, width, height, class = "") {
  file <- tempfile(fileext = ".png")
  on.exit(unlink(file))
  # The page says the model once.
  subtitle <- sub("^model [^\n]*\n?", "", plot$labels$subtitle)
  plot <- plot + ggplot2::labs(subtitle = if (nzchar(subtitle)) subtitle)
  ggplot2::ggsave(file, plot, device = "png", width = width, height = height, dpi = 150, bg = "white")
  sprintf(
    "<figure class=\"%s\"><img alt=\"%s\" width=\"%d\" height=\"%d\" src=\"data:image/png;base64,%s\"><figcaption>%s</figcaption></figure>",
    class, html(paste0(plot$labels$title, ". ", caption)), round(100 * width), round(100 * height),
    base64enc::base64encode(file), html(caption)
  )
}

# ---- Table of the guides ----

report_table <- function(guides, target) {
  number <- function(x, format) ifelse(is.na(x), "", sprintf(format, x))
  whole <- function(x) ifelse(is.na(x), "", vapply(x, big, ""))
  columns <- list(
    list("guide", html(guides$guide_id), FALSE),
    if (!is.null(target)) list("target", html(ifelse(is.na(target), "", target)), FALSE),
    list("cells called", whole(guides$n_cells_called), TRUE),
    list("with this guide only", whole(guides$n_cells_single), TRUE),
    list("cells with a UMI", whole(guides$n_cells), TRUE),
    list("median UMIs", whole(guides$median_umi), TRUE),
    list("mean confidence", number(guides$mean_confidence, "%.3f"), TRUE),
    if (any(!is.na(guides$expected_precision))) list("expected precision", number(guides$expected_precision, "%.3f"), TRUE),
    if (any(!is.na(guides$expected_recall))) list("expected recall", number(guides$expected_recall, "%.3f"), TRUE),
    if (any(!is.na(guides$warning))) list("warning", html(ifelse(is.na(guides$warning), "", guides$warning)), FALSE)
  )
  columns <- Filter(Negate(is.null), columns)
  numeric <- vapply(columns, `[[`, NA, 3L)
  # The ends of rows and cells are left out, as HTML allows: that is a third of a large table.
  cells <- lapply(columns, function(column) paste0(if (column[[3L]]) "<td class=n>" else "<td>", column[[2L]]))
  rows <- paste0("<tr>", do.call(paste0, cells))
  heads <- sprintf(
    "<th scope=\"col\"%s><button type=\"button\">%s</button></th>", ifelse(numeric, " class=\"n\"", ""),
    vapply(columns, `[[`, "", 1L)
  )
  c(
    "<section><h2>Guides</h2>",
    paste0(
      "<p>Click on a heading to sort. Expected precision: the share of its calls that are right, by the model; expected ",
      "recall: the share of its carriers that are called.</p>"
    ),
    "<div class=\"tools\"><label>Filter <input id=\"filter\" type=\"search\" placeholder=\"part of a name\"></label>",
    if (any(!is.na(guides$warning))) "<label><input id=\"warned\" type=\"checkbox\"> only with a warning</label>",
    sprintf("<span id=\"shown\" role=\"status\">%s</span>", count_of(nrow(guides), "guide")),
    "<button type=\"button\" id=\"all\" class=\"button\" hidden>show all</button></div>",
    "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Table of the guides\"><table id=\"guides\">",
    paste0("<thead><tr>", paste(heads, collapse = ""), "</tr></thead>"), "<tbody>", rows,
    "</tbody></table></div></section>"
  )
}

# ---- Methods ----

model_references <- c(
  crispat = paste0(
    "Braunger JM, Velten B (2024). Guide assignment in single-cell CRISPR screens using crispat. Bioinformatics. ",
    "doi:10.1093/bioinformatics/btae535"
  ),
  replogle = paste0(
    "Replogle JM, et al. (2020). Combinatorial single-cell CRISPR screens by direct guide RNA capture and targeted ",
    "sequencing. Nature Biotechnology. doi:10.1038/s41587-020-0470-y"
  ),
  sceptre = paste0(
    "Barry T, et al. (2024). Robust differential expression testing for single-cell CRISPR screens at low multiplicity of ",
    "infection. Genome Biology. doi:10.1186/s13059-024-03254-2"
  )
)

report_methods <- function(calls) {
  info <- find_model(calls$model)
  params <- calls$params
  rule <- c(
    if (info$rule == "single_stage") "The model decides by itself.",
    if (!is.null(params$min_confidence) && info$rule != "single_stage") {
      paste0(
        "Pairs with a score of at least ", format(params$min_confidence), " were called",
        if (has_posterior(info)) "; the score is the posterior probability that the cell carries the guide", "."
      )
    },
    if (!is.null(params$min_log_odds)) {
      paste0(
        "Pairs with log odds of at least ", format(params$min_log_odds), " were called, ln(p / (1 - p)) of the posterior ",
        "probability p that the cell carries the guide."
      )
    },
    if (!is.null(params$quantile)) paste0(
      "Of the cells with a guide, the ", format(100 * params$quantile),
      " % with the largest share of their guide UMIs were called."
    ),
    if (!is.null(params$fdr)) {
      paste0(
        "The largest set of pairs with an expected false discovery rate of at most ", format(params$fdr), " was called",
        if (params$fdr_by == "guide") ", for each guide by itself" else ", over all guides", "."
      )
    },
    if (!is.null(params$min_umi) && params$min_umi > 0) paste0(
      "Pairs with fewer than ", format(params$min_umi), " UMIs were not called."
    )
  )
  batches <- if (length(params$batches) > 1L) paste0(" Batches were told apart (", length(params$batches), ").") else ""
  covariate <- if (isTRUE(params$covariate)) " A covariate of the cells was given." else ""
  setting <- switch(
    info$model,
    umi = paste0(" Threshold: ", format(params$umi_threshold), " UMIs."),
    ratio = paste0(" Threshold: a share of ", format(params$min_fraction), "."), ""
  )
  text <- paste0(
    "Guides were assigned to cells with the R package kaichi (version ", calls$version, ") by the model ", info$model, " (",
    info$about, ").", setting, " ",
    paste(rule, collapse = " "), batches, covariate, " Of ", count_of(ncol(calls$counts), "cell"), " and ",
    count_of(nrow(calls$counts), "guide"), ", ", count_of(length(calls$assigned@x), "(cell, guide) pair"),
    " were called: ", big(sum(calls$cells$n_guides_detected == 1L)), " cells with exactly one guide, ",
    big(sum(calls$cells$n_guides_detected > 1L)), " with several, ",
    big(sum(calls$cells$n_guides_detected == 0L)), " with none."
  )
  references <- model_references[c(
    if (info$model != "ambient") "crispat", if (info$model == "poisson_gauss") "replogle",
    if (info$model == "poisson") "sceptre"
  )]
  references <- c(
    paste0("kaichi contributors (2026). kaichi: CRISPR Guide Assignment for Perturb-Seq. R package version ", calls$version),
    references
  )
  shown <- params[vapply(params, function(value) is.atomic(value) && length(value) > 0L, NA)]
  said <- paste0(names(shown), " = ", vapply(shown, function(value) paste(format(value, trim = TRUE), collapse = ", "), ""))
  whole <- screen_words(calls$screen)
  c(
    "<section><h2>Methods</h2>", paste0("<p id=\"methods\">", html(text), "</p>"),
    "<button type=\"button\" id=\"copy\" class=\"button\">Copy the methods and references</button>",
    "<h3>References</h3><ol id=\"references\">", paste0("<li>", html(references), "</li>"), "</ol>",
    "<details><summary>Every setting</summary><p class=\"names\">", html(paste(said, collapse = "; ")), "</p></details>",
    if (length(whole) > 0L) c(
      "<details><summary>The screen as a whole, as the model sees it</summary><p class=\"names\">",
      html(paste(names(whole), whole, sep = " = ", collapse = "; ")), "</p></details>"
    ),
    paste0(
      "<p class=\"names\">Written by kaichi ", kaichi_version(), " on ", html(R.version.string), ", ",
      format(Sys.Date(), "%Y-%m-%d"), ".</p>"
    ),
    "</section>"
  )
}

# ---- The page ----

page_head <- function(title) {
  c(
    "<!DOCTYPE html>", "<html lang=\"en\">", "<head>", "<meta charset=\"utf-8\">",
    # The browser itself refuses whatever is not in the page.
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">",
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">", paste0("<title>", html(title), "</title>"),
    paste0("<style>\n", report_style, "</style>"), "</head>", "<body>"
  )
}

report_style <- "
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; color: #1b1f24; background: #f6f7f9; font: 16px/1.5 system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif; }
header, main { max-width: 1180px; margin: 0 auto; padding: 0 16px; }
header { padding-top: 24px; }
h1 { margin: 0; font-size: 1.8rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 0 0 8px; font-size: 1.3rem; }
h3 { margin: 16px 0 4px; font-size: 1rem; }
.lead { margin: 6px 0 16px; color: #4a5159; }
section { margin: 0 0 20px; padding: 18px; background: #fff; border: 1px solid #dfe3e8; border-radius: 10px; }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(45%, 230px), 1fr)); gap: 16px; }
.numbers b { display: block; font-size: 1.6rem; line-height: 1.2; color: #005a8c; font-variant-numeric: tabular-nums; }
.numbers span { display: block; }
.numbers small, .names { color: #5a626b; font-size: 0.87rem; overflow-wrap: anywhere; }
.warnings { margin: 0; padding-left: 20px; }
.warnings li { margin: 6px 0; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 470px), 1fr)); gap: 18px; }
figure { margin: 0; }
figure.wide { margin-top: 18px; }
img { display: block; width: 100%; height: auto; }
figcaption { color: #4a5159; font-size: 0.9rem; }
.tools { display: flex; flex-wrap: wrap; gap: 8px 20px; align-items: center; margin: 8px 0; }
input[type=search] { padding: 6px 8px; font: inherit; border: 1px solid #9aa3ad; border-radius: 6px; max-width: 60vw; }
.scroll { overflow: auto; max-height: 75vh; border: 1px solid #dfe3e8; border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; }
th { position: sticky; top: 0; background: #eef1f4; text-align: left; padding: 0; vertical-align: bottom; }
th button { width: 100%; padding: 8px 10px; font: inherit; font-weight: 600; text-align: inherit; background: none; border: 0; cursor: pointer; color: inherit; }
th[aria-sort=ascending] button::after { content: ' \\25B2'; }
th[aria-sort=descending] button::after { content: ' \\25BC'; }
td { padding: 5px 10px; border-top: 1px solid #edf0f2; }
td:last-child { min-width: 9em; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
.button { padding: 6px 14px; font: inherit; border: 1px solid #005a8c; border-radius: 6px; background: #fff; color: #005a8c; cursor: pointer; }
ol { padding-left: 22px; overflow-wrap: anywhere; }
@media print { .tools, #copy { display: none; } .scroll { max-height: none; } section { border: 0; padding: 0; } }
"

report_script <- "
(function () {
  var table = document.getElementById('guides'), body = table.tBodies[0];
  var rows = Array.prototype.slice.call(body.rows), heads = table.tHead.rows[0].cells;
  var filter = document.getElementById('filter'), warned = document.getElementById('warned'), shown = document.getElementById('shown');
  var all = document.getElementById('all'), last = heads.length - 1, total = rows.length;
  // Laying out thousands of rows takes a browser seconds, so that only the first are in the table, until all are asked for.
  var most = 500;
  function show() {
    var part = filter.value.trim().toLowerCase();
    var kept = rows.filter(function (row) {
      return (!part || row.textContent.toLowerCase().indexOf(part) >= 0) && !(warned && warned.checked && !row.cells[last].textContent.trim());
    });
    var some = document.createDocumentFragment();
    kept.slice(0, most).forEach(function (row) { some.appendChild(row); });
    body.textContent = '';
    body.appendChild(some);
    function big(n) { return n.toLocaleString('en'); }
    var counted = kept.length === total ? big(total) + (total === 1 ? ' guide' : ' guides') : big(kept.length) + ' of ' + big(total) + ' guides';
    shown.textContent = counted + (kept.length > most ? ', the first ' + most + ' shown' : '');
    all.hidden = kept.length <= most;
  }
  function sort(column) {
    var head = heads[column], number = head.classList.contains('n');
    var up = head.getAttribute('aria-sort') ? head.getAttribute('aria-sort') === 'descending' : !number;
    var keyed = rows.map(function (row, at) {
      var text = row.cells[column].textContent.trim();
      return { row: row, at: at, key: number ? parseFloat(text.replace(/,/g, '')) : text };
    });
    keyed.sort(function (a, b) {
      var d;
      if (number) {
        // Missing numbers stay at the end.
        if (isNaN(a.key) || isNaN(b.key)) return (isNaN(a.key) ? 1 : 0) - (isNaN(b.key) ? 1 : 0) || a.at - b.at;
        d = a.key - b.key;
      } else {
        d = a.key.localeCompare(b.key, 'en', { numeric: true });
      }
      return (up ? d : -d) || a.at - b.at;
    });
    rows = keyed.map(function (one) { return one.row; });
    show();
    Array.prototype.forEach.call(heads, function (other) { other.removeAttribute('aria-sort'); });
    head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
  }
  Array.prototype.forEach.call(heads, function (head, column) { head.firstElementChild.addEventListener('click', function () { sort(column); }); });
  filter.addEventListener('input', show);
  all.addEventListener('click', function () { most = Infinity; show(); });
  if (warned) warned.addEventListener('change', show);
  show();
  var copy = document.getElementById('copy');
  copy.addEventListener('click', function () {
    var range = document.createRange(), chosen = window.getSelection();
    range.setStartBefore(document.getElementById('methods'));
    range.setEndAfter(document.getElementById('references'));
    var text = document.getElementById('methods').textContent + '\\n\\n' + Array.prototype.map.call(document.getElementById('references').children, function (one) { return one.textContent; }).join('\\n');
    function selected() { chosen.removeAllRanges(); chosen.addRange(range); copy.textContent = 'Selected: copy it with your keyboard'; }
    // A page opened from disk has no clipboard in some browsers.
    if (navigator.clipboard) navigator.clipboard.writeText(text).then(function () { copy.textContent = 'Copied'; }, selected);
    else selected();
  });
})();
"
