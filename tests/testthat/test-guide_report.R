skip_if_not_installed("ggplot2")
skip_if_not_installed("base64enc")

report_of <- function(calls, ...) {
  file <- tempfile(fileext = ".html")
  on.exit(unlink(file))
  expect_identical(withVisible(guide_report(calls, file, show = rownames(calls$counts)[1L], ...))[c("value", "visible")], list(value = file, visible = FALSE))
  readLines(file, encoding = "UTF-8")
}

# What a browser makes of text.
unescaped <- function(x) {
  for (of in list(c("&lt;", "<"), c("&gt;", ">"), c("&quot;", "\""), c("&#39;", "'"), c("&amp;", "&"))) x <- gsub(of[1L], of[2L], x, fixed = TRUE)
  x
}

table_of <- function(page) {
  rows <- grep("^<tr><td>", page, value = TRUE)
  # strsplit() drops an empty last cell; a mark keeps it.
  cells <- do.call(rbind, strsplit(paste0(rows, "\001"), "<td( class=n)?>"))[, -1L, drop = FALSE]
  array(unescaped(sub("\001", "", cells, fixed = TRUE)), dim(cells))
}

test_that("the page holds the numbers of the summary, the table, pictures and methods, and names nothing outside", {
  calls <- assign_guides(small_screen()$counts)
  page <- report_of(calls, title = "Our screen")
  text <- paste(page, collapse = "\n")
  expect_identical(page[1L], "<!DOCTYPE html>")
  for (tag in c("html", "head", "body", "header", "main", "table", "tbody", "script", "style")) {
    expect_length(gregexpr(paste0("<", tag, "[ >]"), text)[[1L]], 1L)
    expect_length(gregexpr(paste0("</", tag, ">"), text, fixed = TRUE)[[1L]], 1L)
  }
  expect_length(gregexpr("<section", text)[[1L]], length(gregexpr("</section>", text)[[1L]]))
  expect_match(text, "<h1>Our screen</h1>", fixed = TRUE)

  # Nothing is fetched: every source is in the page.
  sources <- regmatches(text, gregexpr("(src|href|action)=\"[^\"]{0,30}", text))[[1L]]
  expect_true(all(startsWith(sources, "src=\"data:image/png;base64,")))
  expect_false(grepl("@import|url\\(|<link|<iframe|https?://", text))
  images <- regmatches(text, gregexpr("(?<=base64,)[^\"]+", text, perl = TRUE))[[1L]]
  expect_length(images, 7L)
  for (image in images) expect_identical(base64enc::base64decode(image)[2:4], charToRaw("PNG"))

  s <- summary(calls)
  n <- calls$cells$n_guides_detected
  for (share in c(mean(n == 1L), mean(n > 1L), mean(n == 0L), s$share_ambient)) {
    expect_match(text, sprintf("<b>%.1f %%</b>", 100 * share), fixed = TRUE)
  }
  expect_match(text, sprintf("<b>%.2f</b>", s$moi[["called"]]), fixed = TRUE)
  table <- table_of(page)
  expect_identical(table[, 1L], s$guides$guide_id)
  expect_identical(as.integer(table[, 2L]), s$guides$n_cells_called)
  expect_identical(as.integer(table[, 3L]), s$guides$n_cells_single)
  expect_identical(as.numeric(table[, 5L]), s$guides$median_umi)
  expect_equal(as.numeric(table[, 7L]), s$guides$expected_precision, tolerance = 1e-3)
  expect_identical(table[, 9L], s$guides$warning)
  # The guide in no cell, that of single UMIs, and that of one cell are named with their warning.
  for (kind in unique(s$guides$warning[s$guides$warning != ""])) expect_match(text, html(kind), fixed = TRUE)
  methods <- grep("id=\"methods\"", page, value = TRUE)
  for (said in c("kaichi", calls$version, "poisson_gauss", "at least 0.8", "300 cells", "10 guides")) expect_match(methods, said, fixed = TRUE)
  expect_match(text, "10.1093/bioinformatics/btae535", fixed = TRUE)
})

test_that("names are text: <, &, quotes, and letters beyond ASCII", {
  guides <- c(awkward_guides[-10L], "<script>alert('x')</script>&amp;")
  calls <- awkward_calls(guides)
  page <- report_of(calls, title = "<b>\"A\" & 'B'</b>", guides = data.frame(guide_id = guides, target = rep(c("T<1>", "non-targeting"), 5)))
  text <- paste(page, collapse = "\n")
  expect_match(text, "<title>&lt;b&gt;&quot;A&quot; &amp; &#39;B&#39;&lt;/b&gt;</title>", fixed = TRUE)
  expect_length(gregexpr("<script", text)[[1L]], 1L)
  table <- table_of(page)
  expect_identical(table[, 1L], guides)
  expect_identical(table[, 2L], rep(c("T<1>", "non-targeting"), 5))
  expect_false(grepl("<b>\"", text, fixed = TRUE))
})

test_that("every model has its report, and so have no calls, one guide and an object", {
  screen <- small_screen()
  for (model in all_models()) {
    calls <- assign_guides(screen$counts, model)
    page <- report_of(calls)
    expect_identical(nrow(table_of(page)), 10L)
    methods <- grep("id=\"methods\"", page, value = TRUE)
    expect_match(methods, paste("by the model", model), fixed = TRUE)
    expect_false(grepl("NA|NULL|NaN", methods), label = model)
  }
  page <- report_of(assign_guides(screen$counts, "poisson", fdr = 0.05, min_umi = 2, batch = screen$batch), batch = screen$batch)
  methods <- grep("id=\"methods\"", page, value = TRUE)
  for (said in c("expected false discovery rate of at most 0.05", "fewer than 2 UMIs", "Batches were told apart (3)")) expect_match(methods, said, fixed = TRUE)
  report_of(assign_guides(screen$counts, "umi", control = model_control(umi_threshold = 1e6)))
  report_of(assign_guides(as_counts(matrix(0, 1, 2, dimnames = list("g", c("c", "d")))), "umi"))
  skip_if_not_installed("SingleCellExperiment")
  file <- tempfile(fileext = ".html")
  suppressMessages(guide_report(as_sce(assign_guides(screen$counts)), file))
  expect_gt(file.size(file), 1e5)
})

test_that("ten thousand guides are at most 5 MB", {
  calls <- assign_guides(simulate_guides("easy", n_cells = 5000, n_guides = 10000)$counts, "umi")
  page <- report_of(calls)
  expect_identical(nrow(table_of(page)), 10000L)
  expect_lt(sum(nchar(page, "bytes") + 1), 5e6)
})

test_that("it is written whole or not at all", {
  folder <- tempfile()
  dir.create(folder)
  calls <- assign_guides(small_screen()$counts, "umi")
  path <- file.path(folder, "report.html")
  guide_report(calls, path, show = "guide-1")
  expect_identical(list.files(folder, all.files = TRUE, no.. = TRUE), "report.html")
  before <- readLines(path)
  expect_error(guide_report(calls, path), class = "kaichi_error_file")
  expect_error(guide_report(calls, path, show = "none", overwrite = TRUE), class = "kaichi_error_names")
  expect_identical(readLines(path), before)
  guide_report(calls, path, show = "guide-1", title = "Again", overwrite = TRUE)
  expect_match(readLines(path), "<h1>Again</h1>", fixed = TRUE, all = FALSE)
  expect_identical(list.files(folder, all.files = TRUE, no.. = TRUE), "report.html")
})

test_that("bad arguments are errors that say what to give", {
  calls <- assign_guides(small_screen()$counts, "umi")
  expect_snapshot({
    error_text("argument", guide_report(1, "x.html"))
    error_text("argument", guide_report(calls, 1))
    error_text("argument", guide_report(calls, "x.html", titel = "a"))
    error_text("argument", guide_report(calls, "x.html", title = c("a", "b")))
    error_text("argument", guide_report(calls, "x.html", overwrite = NA))
    error_text("file", guide_report(calls, "no-such-folder/x.html"))
    error_text("argument", guide_report(calls, "x.html", show = rep("guide-1", 13)))
  })
  expect_false(file.exists("x.html"))
})
