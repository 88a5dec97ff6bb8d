# man/figures/logo.png, the hexagon of the package: the two populations of a guide's counts, and the cut between them. The same as
# the icons of the site, which pkgdown would have made by a service.
#   Rscript tools/logo.R
library(grid)

draw <- function(file, width, height) {
  grDevices::png(file, width, height, bg = "transparent", type = "cairo", res = 72 * width / 480)
  grid.newpage()
  pushViewport(viewport(width = min(1, 480 / 556 * height / width)))
  # A hexagon on its point fills a page of 1 to 2 / sqrt(3).
  angle <- pi / 6 + 0:5 * pi / 3
  hexagon <- function(r) list(x = unit(0.5, "npc") + unit(r * cos(angle), "snpc"), y = unit(0.5, "npc") + unit(r * sin(angle), "snpc"))
  outer <- hexagon(0.57)
  inner <- hexagon(0.545)
  grid.polygon(outer$x, outer$y, gp = gpar(fill = "#1B2A41", col = NA))
  grid.polygon(inner$x, inner$y, gp = gpar(fill = "#F7F4EA", col = NA))

  # Cells by UMIs, on a log scale: background, then signal.
  x <- seq_len(24)
  background <- 1.05 * exp(-(x - 1) / 2.4)
  signal <- 0.62 * exp(-((x - 16.5) / 3.9)^2)
  height <- pmax(background, signal)
  left <- 0.16
  width <- 0.68 / length(x)
  called <- x > 8
  grid.rect(
    left + (x - 1) * width, 0.36, width * 0.8, 0.36 * height, just = c("left", "bottom"),
    gp = gpar(fill = ifelse(called, "#009E73", "#9AA5B1"), col = NA)
  )
  grid.segments(left + 8 * width - 0.2 * width / 2, 0.34, left + 8 * width - 0.2 * width / 2, 0.72, gp = gpar(lty = 2, lwd = 4, col = "#D55E00"))
  grid.text("kaichi", 0.5, 0.245, gp = gpar(fontfamily = "sans", fontface = "bold", fontsize = 64, col = "#1B2A41"))
  invisible(grDevices::dev.off())
}

draw("man/figures/logo.png", 480, 556)
dir.create("pkgdown/favicon", recursive = TRUE, showWarnings = FALSE)
icons <- c(
  "favicon-16x16" = 16, "favicon-32x32" = 32, "apple-touch-icon-60x60" = 60, "apple-touch-icon-76x76" = 76,
  "apple-touch-icon-120x120" = 120, "apple-touch-icon" = 180
)
for (name in names(icons)) draw(file.path("pkgdown/favicon", paste0(name, ".png")), icons[[name]], icons[[name]])
