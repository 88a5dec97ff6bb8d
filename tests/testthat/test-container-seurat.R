skip_if_not_installed("SeuratObject")

seurat_genes <- function(cells = colnames(container_counts())) {
  genes <- matrix(rep(1:4, length.out = 4L * length(cells)), 4L, dimnames = list(paste0("gene", 1:4), cells))
  methods::as(methods::as(genes + 0, "CsparseMatrix"), "generalMatrix")
}

# `make` is the constructor of the class of assay under test.
seurat_object <- function(make, name = "GDO", guides = container_counts()) {
  # SeuratObject 4 warns of the key of an assay made by itself.
  suppressWarnings(x <- SeuratObject::CreateSeuratObject(make(counts = seurat_genes()), assay = "RNA"))
  x[[name]] <- make(counts = guides)
  x$lane <- rep(c("a", "b"), 4L)
  x
}

old_assay <- SeuratObject::CreateAssayObject
new_assay5 <- function(...) getExportedValue("SeuratObject", "CreateAssay5Object")(...)
layer_of <- function(assay, layer) getExportedValue("SeuratObject", "LayerData")(assay, layer = layer)
join <- function(assay) getExportedValue("SeuratObject", "JoinLayers")(assay)
has_assay5 <- utils::packageVersion("SeuratObject") >= "5.0.0"
makers <- c(list(Assay = old_assay), if (has_assay5) list(Assay5 = new_assay5))

assigned_of <- function(x, assay = "GDO") {
  if (inherits(x[[assay]], "Assay")) x[[paste0(assay, "_assigned")]]@counts else layer_of(x[[assay]], "assigned")
}

for (class in names(makers)) {
  make <- makers[[class]]

  test_that(paste("counts come out of an", class, "and calls go in"), {
    x <- seurat_object(make)
    expect_s4_class(x[["GDO"]], class)
    expect_message(got <- guide_counts(x), "assay \"GDO\"")
    expect_identical(got, list(counts = container_counts(), batch = NULL, covariate = NULL, modality = "GDO"))

    expect_silent(y <- attach_calls(x, calls_by_hand(got$counts), "GDO"))
    expect_s4_class(y, "Seurat")
    expect_true(methods::validObject(y))
    expect_s4_class(y[["GDO"]], class)
    expect_identical(names(y@meta.data), c(names(x@meta.data), call_names))
    expect_identical(rownames(y@meta.data), colnames(x))
    expect_identical(y@meta.data$guide_id, c("GATA1-1", "GATA1-2", "NT-1", "GATA1-2", NA, NA, "GATA1-2", "NT-1"))
    expect_identical(y@meta.data$umi_count, c(9L, 7L, 30L, 12L, NA, NA, 25L, 6L))
    expect_identical(y@meta.data$is_multi_infected, 1:8 == 4L)
    expect_identical(assigned_of(y), calls_by_hand(got$counts)$assigned)
    expect_identical(suppressMessages(guide_counts(y))$counts, got$counts)
    provenance <- SeuratObject::Misc(y[["GDO"]], "kaichi")
    expect_identical(
      provenance[c("model", "params", "version")], list(model = "umi", params = list(min_umi = 5), version = "1")
    )
    expect_identical(provenance$fits$guide_id, rownames(container_counts()))
    expect_identical(SeuratObject::DefaultAssay(y), "RNA")
    expect_identical(y[["RNA"]], x[["RNA"]])
  })

  test_that(paste("the assay is found by its name or named, with an", class), {
    for (name in c("CRISPR", "guides", "gRNA", "sgRNA", "GDO")) {
      got <- suppressMessages(guide_counts(seurat_object(make, name)))
      expect_identical(got$modality, name)
    }
    suppressWarnings(only <- SeuratObject::CreateSeuratObject(make(counts = container_counts()), assay = "RNA"))
    # An assay that is named for genes is taken only where the user says so.
    expect_error(guide_counts(only), "named for genes.*modality = \"RNA\"", class = "kaichi_error_modality")
    expect_identical(guide_counts(only, modality = "RNA")$counts, container_counts())
    # Also after the first run, which with an Assay leaves a second one.
    suppressWarnings(only <- SeuratObject::CreateSeuratObject(make(counts = container_counts()), assay = "pool"))
    expect_message(got <- guide_counts(only), "assay \"pool\"")
    only <- attach_by_hand(only)
    expect_identical(suppressMessages(guide_counts(only))$modality, "pool")
    crispr <- attach_by_hand(seurat_object(make, "CRISPR"))
    expect_identical(suppressMessages(guide_counts(crispr))$modality, "CRISPR")

    odd <- seurat_object(make, "pool")
    expect_silent(got <- guide_counts(odd, modality = "pool"))
    expect_identical(got$counts, container_counts())
    expect_error(guide_counts(odd), "RNA\", \"pool", class = "kaichi_error_modality")
  })

  test_that(paste("names with underscores become Seurat's in an", class), {
    underscored <- container_counts(c("GATA1_1", "GATA1|2", "NT-1"))
    suppressWarnings(x <- seurat_object(make, "GDO", underscored))
    got <- guide_counts(x, modality = "GDO")
    expect_identical(rownames(got$counts), c("GATA1-1", "GATA1-2", "NT-1"))
    expect_identical(colnames(got$counts), colnames(underscored))

    # Calls made outside, with the names as they were.
    expect_silent(y <- attach_calls(x, calls_by_hand(underscored), "GDO"))
    expect_identical(y@meta.data$guide_id[1:3], c("GATA1_1", "GATA1|2", "NT-1"))
    expect_identical(assigned_of(y), calls_by_hand(got$counts)$assigned)
  })

  test_that(paste("a rerun replaces its own results and nothing else, with an", class), {
    x <- seurat_object(make)
    x@meta.data$guide_id <- factor("old")
    x@meta.data$umi_count <- "many"
    once <- attach_by_hand(x)
    expect_type(once@meta.data$guide_id, "character")
    expect_type(once@meta.data$umi_count, "integer")
    once$mine <- 8:1
    expect_silent(twice <- attach_by_hand(once, version = "2"))
    expect_true(methods::validObject(twice))
    expect_identical(twice@meta.data$mine, 8:1)
    expect_identical(twice@meta.data$lane, rep(c("a", "b"), 4L))
    expect_identical(names(twice@assays), names(once@assays))
    expect_identical(SeuratObject::Misc(twice[["GDO"]], "kaichi")$version, "2")
    expect_identical(attach_by_hand(twice, version = "2"), twice)
  })

  test_that(paste("calls are matched by name, with an", class), {
    x <- seurat_object(make)
    counts <- container_counts()
    shuffled <- calls_by_hand(counts[3:1, c(5, 1, 8, 2, 7, 3, 6, 4)])
    y <- attach_calls(x, shuffled, "GDO")
    expect_identical(y@meta.data$guide_id, calls_by_hand(counts)$cells$guide_id)
    expect_identical(assigned_of(y), calls_by_hand(counts)$assigned)

    expect_message(
      some <- attach_calls(x, calls_by_hand(counts[, c(4, 1)]), "GDO", join = "left"), "Calls for 2 of the 8 cells"
    )
    expect_identical(some@meta.data$guide_id, c("GATA1-1", NA, NA, "GATA1-2", NA, NA, NA, NA))
    expect_identical(some@meta.data$n_guides_detected, c(1L, 0L, 0L, 2L, 0L, 0L, 0L, 0L))
    expect_identical(some@meta.data$is_unassigned, !1:8 %in% c(1L, 4L))
    expect_identical(sum(assigned_of(some)), 3)
  })

  test_that(paste("the enriched object can be subset, merged, saved and read back, with an", class), {
    x <- attach_by_hand(seurat_object(make))
    some <- subset(x, cells = c("cell_4", "cell_2"))
    expect_identical(some@meta.data$guide_id, c("GATA1-2", "GATA1-2"))
    expect_setequal(colnames(some), c("cell_4", "cell_2"))
    expect_identical(dim(assigned_of(some)), c(3L, 2L))
    expect_identical(suppressMessages(guide_counts(some))$counts, container_counts()[, colnames(some)])
    expect_true(methods::validObject(attach_by_hand(some)))

    both <- merge(subset(x, cells = colnames(x)[1:4]), subset(x, cells = colnames(x)[5:8]))
    again <- attach_by_hand(both)
    expect_true(methods::validObject(again))
    expect_identical(suppressMessages(guide_counts(again))$counts, container_counts())
    expect_identical(assigned_of(again), calls_by_hand(container_counts())$assigned)

    path <- tempfile(fileext = ".rds")
    on.exit(unlink(path))
    saveRDS(x, path)
    expect_equal(readRDS(path), x)
  })

  test_that(paste("assign_guides() gives an object the calls of its counts, with an", class), {
    x <- seurat_object(make)
    calls <- assign_guides(container_counts(), model = "umi")
    expect_message(y <- assign_guides(x, model = "umi"), "assay \"GDO\"")
    expect_identical(`rownames<-`(y@meta.data[call_names], NULL), calls$cells[call_names])
    expect_identical(assigned_of(y), calls$assigned)
    expect_identical(SeuratObject::Misc(y[["GDO"]], "kaichi"), unclass(calls)[c("model", "params", "version", "fits", "screen")])
    expect_silent(named <- assign_guides(x, model = "poisson", batch = "lane", modality = "GDO"))
    expect_identical(SeuratObject::Misc(named[["GDO"]], "kaichi")$params$batches, c("a", "b"))
    # A rerun with another model leaves nothing of the first.
    expect_identical(assign_guides(y, model = "poisson", batch = "lane", modality = "GDO"), named)
  })

  test_that(paste("batch is a column of meta.data or a vector, with an", class), {
    x <- seurat_object(make)
    lanes <- factor(rep(c("a", "b"), 4L))
    expect_identical(guide_counts(x, batch = "lane", modality = "GDO")$batch, lanes)
    expect_identical(guide_counts(x, batch = lanes, modality = "GDO")$batch, lanes)
    error <- expect_error(guide_counts(x, batch = "sample", modality = "GDO"), class = "kaichi_error_batch")
    expect_match(conditionMessage(error), "\"lane\"")
    x@meta.data$rna <- 1:8
    expect_identical(guide_counts(x, covariate = "rna", modality = "GDO")$covariate, as.double(1:8))
    reversed <- stats::setNames(8:1, rev(colnames(x)))
    expect_identical(guide_counts(x, covariate = reversed, modality = "GDO")$covariate, as.double(1:8))
    error <- expect_error(guide_counts(x, covariate = "sample", modality = "GDO"), class = "kaichi_error_argument")
    expect_match(conditionMessage(error), "\"rna\"")
  })
}

test_that("what cannot be used is an error that lists what there is", {
  x <- seurat_object(old_assay)
  two <- x
  two[["CRISPR"]] <- old_assay(counts = container_counts())
  none <- seurat_object(old_assay, "pool")
  normalised <- seurat_object(old_assay)
  suppressWarnings(normalised[["guides"]] <- old_assay(data = container_counts()))
  logged <- seurat_object(old_assay, "GDO", log1p(container_counts()))
  calls <- calls_by_hand(container_counts())
  other_cells <- calls_by_hand(`colnames<-`(container_counts(), letters[1:8]))
  other_guides <- calls_by_hand(container_counts(c("A", "B", "C")))
  alike <- calls_by_hand(container_counts(c("NT_1", "NT-1", "GATA1-1")))
  expect_snapshot({
    error_text("modality", guide_counts(two))
    error_text("modality", guide_counts(none))
    error_text("modality", guide_counts(x, modality = "gdo"))
    error_text("modality", attach_calls(x, calls, "gdo"))
    error_text("argument", guide_counts(x, modality = 2))
    error_text("argument", guide_counts(x, modality = "GDO", layer = "raw"))
    error_text("argument", guide_counts(normalised, modality = "guides"))
    error_text("batch", guide_counts(x, modality = "GDO", batch = "sample"))
    error_text("names", attach_calls(x, other_cells, "GDO"))
    error_text("names", attach_calls(x, other_guides, "GDO"))
    error_text("names", attach_calls(x, alike, "GDO"))
  })
  expect_error(guide_counts(logged, modality = "GDO"), "cell_1", class = "kaichi_error_counts")
})

test_that("the data slot of an Assay can be named", {
  x <- seurat_object(old_assay)
  suppressWarnings(x[["guides"]] <- old_assay(data = container_counts()))
  expect_identical(guide_counts(x, modality = "guides", layer = "data")$counts, container_counts())
})

test_that("split layers are joined by the names of cells and guides", {
  skip_if_not(has_assay5)
  x <- seurat_object(new_assay5)
  x[["GDO"]] <- split(x[["GDO"]], f = c("s2", "s1", "s2", "s1", "s3", "s1", "s3", "s2"))
  expect_setequal(names(x[["GDO"]]@layers), c("counts.s1", "counts.s2", "counts.s3"))
  expect_silent(got <- guide_counts(x, modality = "GDO", batch = "lane"))
  expect_identical(got$counts, container_counts())
  expect_identical(got$batch, factor(rep(c("a", "b"), 4L)))
  expect_silent(y <- attach_calls(x, calls_by_hand(got$counts), "GDO"))
  expect_identical(assigned_of(y), calls_by_hand(got$counts)$assigned)
  expect_setequal(names(y[["GDO"]]@layers), c("counts.s1", "counts.s2", "counts.s3", "assigned"))
  # Joined by Seurat itself afterwards: the same counts.
  joined <- y
  joined[["GDO"]] <- join(joined[["GDO"]])
  expect_identical(guide_counts(joined, modality = "GDO")$counts, container_counts())
  # One part alone, by its name.
  expect_identical(guide_counts(x, modality = "GDO", layer = "counts.s3")$counts, container_counts()[, c(5, 7)])
})

test_that("parts that lack some of the guides are joined with zeros", {
  skip_if_not(has_assay5)
  counts <- container_counts()
  parts <- list(a = counts[2:3, c(8, 2, 3)], b = counts[c(3, 1), c(1, 4)])
  x <- SeuratObject::CreateSeuratObject(new_assay5(counts = parts), assay = "guides")
  got <- suppressMessages(guide_counts(x))
  expect_setequal(colnames(got$counts), colnames(counts)[c(8, 2, 3, 1, 4)])
  expect_setequal(rownames(got$counts), rownames(counts))
  for (part in parts) expect_identical(as.matrix(got$counts[rownames(part), colnames(part)]), as.matrix(part))
  expect_identical(sum(got$counts), sum(parts$a) + sum(parts$b))
})

test_that("layers that are not parts of one are not added up", {
  skip_if_not(has_assay5)
  x <- seurat_object(new_assay5)
  guides <- new_assay5(counts = list(raw = container_counts(), filtered = container_counts()[, 1:5]))
  x[["guides"]] <- guides
  expect_error(guide_counts(x, modality = "guides"), "more than one", class = "kaichi_error_argument")
  expect_identical(guide_counts(x, modality = "guides", layer = "counts.raw")$counts, container_counts())
  expect_error(guide_counts(x, modality = "guides", layer = "ounts"), "counts.filtered", class = "kaichi_error_argument")
})

test_that("an Assay5 may hold fewer cells than the object, in another order", {
  skip_if_not(has_assay5)
  cells <- c(7, 2, 5, 3)
  x <- SeuratObject::CreateSeuratObject(new_assay5(counts = seurat_genes()), assay = "RNA")
  suppressWarnings(x[["GDO"]] <- new_assay5(counts = container_counts()[, cells]))
  x$lane <- c("a", "b", "c", "a", "b", "a", "c", NA)
  expect_silent(got <- guide_counts(x, batch = "lane", modality = "GDO"))
  expect_setequal(colnames(got$counts), colnames(x)[cells])
  expect_identical(as.matrix(got$counts), as.matrix(container_counts()[, colnames(got$counts)]))
  expect_identical(as.character(got$batch), x@meta.data[colnames(got$counts), "lane"])
  expect_message(y <- attach_calls(x, calls_by_hand(got$counts), "GDO", join = "left"), "Calls for 4 of the 8 cells")
  expect_true(methods::validObject(y))
  expect_identical(y@meta.data$guide_id, c(NA, "GATA1-2", "NT-1", NA, NA, NA, "GATA1-2", NA))
  expect_identical(y@meta.data$is_unassigned, c(TRUE, FALSE, FALSE, TRUE, TRUE, TRUE, FALSE, TRUE))
  expect_identical(y@meta.data$n_guides_detected, c(0L, 1L, 1L, 0L, 0L, 0L, 1L, 0L))
  expect_identical(dim(assigned_of(y)), c(3L, 4L))
  expect_identical(sum(assigned_of(y)), 3)
})

test_that("an Assay5 that subset() left without its matrix is an error that says so", {
  skip_if_not(has_assay5)
  x <- seurat_object(new_assay5)
  x@assays$GDO@layers$counts <- x@assays$GDO@layers$counts[1L, ]
  expect_error(guide_counts(x, modality = "GDO"), "not a matrix", class = "kaichi_error_counts")
})
