# The naive way: cell by cell.
called_of <- function(calls, cell) calls$pairs$guide_id[calls$pairs$cell_barcode == calls$cells$cell_barcode[cell]]
by_cell <- function(calls, f) vapply(seq_len(nrow(calls$cells)), function(cell) f(called_of(calls, cell)), "")
target_of <- function(guide) guide_table_of()$target[match(guide, awkward_guides)]

test_that("mixscape: one target or control a cell, NA for the others", {
  calls <- awkward_calls()
  expect_silent(columns <- cell_columns(calls, "mixscape", guides = guide_table_of()))
  expect_named(columns, c("guide_ID", "gene", "NT", "crispr"))
  expect_identical(rownames(columns), calls$cells$cell_barcode)
  gene <- by_cell(calls, function(guides) {
    targets <- unique(ifelse(target_of(guides) == "non-targeting", "NT", target_of(guides)))
    if (length(targets) == 1L) targets else NA_character_
  })
  expect_identical(columns$gene, gene)
  expect_identical(
    columns$guide_ID, ifelse(is.na(gene), NA, by_cell(calls, function(guides) paste(guides, collapse = "|")))
  )
  expect_identical(columns$NT, ifelse(gene == "NT", "NT", columns$guide_ID))
  expect_identical(columns$crispr, ifelse(gene == "NT", "NT", "Perturbed"))
  # Each kind of cell is there: none, one, two of one target, a control, mixed.
  expect_true(anyNA(gene) && "NT" %in% gene && any(grepl("|", columns$guide_ID, fixed = TRUE)))
})

test_that("scperturb: sorted targets, controls only where there is nothing else", {
  calls <- awkward_calls()
  columns <- cell_columns(calls, "scperturb", guides = guide_table_of(), sep = "/")
  expect_identical(columns$perturbation, by_cell(calls, function(guides) {
    targets <- sort(setdiff(unique(target_of(guides)), "non-targeting"))
    if (length(guides) == 0L) NA_character_ else if (length(targets) == 0L) "control" else paste(targets, collapse = "/")
  }))
  expect_identical(columns$guide_id, by_cell(calls, function(guides) {
    if (length(guides) == 0L) NA_character_ else paste(guides, collapse = "/")
  }))
  expect_identical(columns$nperts, vapply(seq_len(60L), function(cell) {
    length(setdiff(unique(target_of(called_of(calls, cell))), "non-targeting"))
  }, 0L))
  expect_identical(columns$perturbation_type, ifelse(calls$cells$is_unassigned, NA, "CRISPR"))
  # The default of the perturbations, where no guide holds the ; of guide_id.
  plain <- awkward_calls(sub(";", ".", awkward_guides))
  table <- guide_table_of(sub(";", ".", awkward_guides))
  expect_identical(
    cell_columns(plain, "scperturb", guides = table)$perturbation, gsub("/", "_", columns$perturbation)
  )
})

test_that("cellxgene: sorted guides, and the words of the schema", {
  calls <- awkward_calls()
  columns <- cell_columns(calls, "cellxgene", guides = guide_table_of(), strategy = "CRISPR interference screen")
  expect_identical(columns$genetic_perturbation_id, by_cell(calls, function(guides) {
    if (length(guides) == 0L) "na" else paste(sort(guides, method = "radix"), collapse = " || ")
  }))
  expect_identical(columns$genetic_perturbation_strategy, by_cell(calls, function(guides) {
    if (length(guides) == 0L) return("no perturbations")
    if (all(target_of(guides) == "non-targeting")) "control" else "CRISPR interference screen"
  }))
  # STAT1-10 is before STAT1-2, whatever the locale says.
  both <- grepl("STAT1-10", columns$genetic_perturbation_id) & grepl("STAT1-2", columns$genetic_perturbation_id)
  expect_true(all(regexpr("STAT1-10", columns$genetic_perturbation_id)[both] < regexpr("STAT1-2$|STAT1-2 ", columns$genetic_perturbation_id)[both]))
})

test_that("pertpy, igvf, replogle and geomux need no targets", {
  calls <- awkward_calls()
  joined <- function(sep, none) by_cell(calls, function(guides) {
    if (length(guides) == 0L) none else paste(guides, collapse = sep)
  })
  expect_silent(pertpy <- cell_columns(calls, "pertpy", sep = "/"))
  expect_identical(pertpy$assigned_guide, joined("/", "Negative"))
  igvf <- cell_columns(calls, "igvf")
  dense <- as.matrix(calls$counts)
  expect_equal(igvf$num_expressed_guides, unname(colSums(dense > 0)))
  expect_equal(igvf$total_guide_umis, unname(colSums(dense)))
  expect_identical(igvf$n_guides_per_cell, calls$cells$n_guides_detected)
  geomux <- cell_columns(calls, "geomux")
  expect_named(geomux, c("cell_id", "cell", "moi", "n_umi", "assignment", "umis", "fdr", "log_odds"))
  expect_identical(geomux$assignment, joined("|", ""))
  umis <- vapply(geomux$umis, function(x) sum(as.numeric(strsplit(x, "|", fixed = TRUE)[[1L]])), 0)
  expect_equal(unname(umis), unname(colSums(dense * (dense >= 5))))
  expect_identical(geomux$moi, calls$cells$n_guides_detected)
  replogle <- cell_columns(calls, "replogle")
  expect_identical(replogle$guide_identity, calls$cells$guide_id)
  expect_identical(replogle$gemgroup, rep(1L, 60L))
  expect_identical(replogle$number_of_cells, calls$cells$n_guides_detected)
})

test_that("calls without any guide called have columns too", {
  calls <- awkward_calls(control = model_control(umi_threshold = 1000))
  expect_identical(nrow(calls$pairs), 0L)
  for (format in names(cell_formats)) {
    columns <- cell_columns(
      calls, format, guides = guide_table_of(), strategy = if (format == "cellxgene") "CRISPR knockout screen"
    )
    expect_identical(nrow(columns), 60L, label = format)
  }
})

test_that("controls are told by type, by target, or named; the choice is said", {
  calls <- awkward_calls()
  table <- guide_table_of()
  nt <- function(...) suppressMessages(cell_columns(calls, "mixscape", ...))$gene
  expected <- nt(guides = table)
  expect_message(cell_columns(calls, "mixscape", guides = table[c("guide_id", "target")]), class = "kaichi_message_choice")
  for (word in c("NT", "Non-Targeting", "non_targeting", "safe-targeting", "scrambled", "negative_control", "NTC")) {
    named <- transform(table, target = ifelse(target == "non-targeting", word, target), type = NULL)
    expect_identical(nt(guides = named), expected, label = word)
  }
  odd <- transform(table, target = ifelse(target == "non-targeting", "AAVS1", target), type = NULL)
  expect_message(cell_columns(calls, "mixscape", guides = odd), "No guide is a control", class = "kaichi_message_choice")
  expect_silent(cell_columns(calls, "mixscape", guides = odd, control = "AAVS1"))
  expect_identical(nt(guides = odd, control = "AAVS1"), expected)
  # A gene of that name is a target where the type says so.
  gene <- transform(table, target = ifelse(target == "CD3E", "CTRL", target))
  expect_identical(nt(guides = gene), ifelse(expected == "CD3E", "CTRL", expected))
  # Rows in another order and more of them; the table of the calls themselves.
  more <- rbind(data.frame(guide_id = "other", target = "X", type = "targeting"), table[10:1, ])
  expect_identical(nt(guides = more), expected)
  calls$guides <- table
  expect_identical(nt(), expected)
})

test_that("what cannot be told apart or is not there is an error", {
  calls <- awkward_calls()
  piped <- awkward_calls(sub("a,b", "a|b", awkward_guides, fixed = TRUE))
  table <- guide_table_of()
  expect_snapshot({
    error_text("argument", cell_columns(calls, "mixscape"))
    error_text("argument", cell_columns(calls, "mixscape", guides = table["guide_id"]))
    error_text("argument", cell_columns(calls, "seurat"))
    error_text("argument", cell_columns(calls, "cellxgene", guides = table))
    error_text("argument", cell_columns(calls, "geomux", strategy = "CRISPR knockout screen"))
    error_text("argument", cell_columns(calls, "cellxgene", guides = table, sep = "/"))
    error_text("argument", cell_columns(calls, "mixscape", guides = table, control = "AAVS1"))
    error_text("argument", cell_columns(calls, "geomux", sep = ""))
    error_text("argument", cell_columns(calls, "geomux", seperator = ";"))
    error_text("argument", cell_columns(data.frame(), "geomux"))
    error_text("names", cell_columns(calls, "pertpy"))
    error_text("names", cell_columns(piped, "geomux"))
    error_text("names", cell_columns(calls, "mixscape", guides = table[-1, ]))
    error_text("names", cell_columns(calls, "mixscape", guides = transform(table, target = ifelse(target == "CD3E", NA, target))))
  })
})
