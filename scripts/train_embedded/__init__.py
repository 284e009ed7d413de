"""Training of the small diffusion models in `bench/assets/embedded`.

    python -m scripts.train_embedded --help
    python -m scripts.train_embedded vae --threads 2
    python -m scripts.train_embedded sdxl &
    python -m scripts.train_embedded pix2pix &
    wait
    python -m scripts.train_embedded export

Everything is trained from nothing on scenes drawn by `bench.worker.scenes`; nothing is downloaded.
Seeds are fixed, the number of steps is fixed, and no clock enters a result: the same versions of
torch, diffusers and Pillow on the same kind of processor with the same number of threads give the
same weights. Elsewhere, rounding differs and so do the weights, a little.

Recipe:

* `vae`: AutoencoderKL, 8x down, widths 16/32/64/64, one layer, 4 latent channels. 60 % of the
  steps on 16 crops of 64x64, then 4 full pictures; absolute and squared error, the same for
  differences of neighbouring pixels, and a KL term of 2e-3. The latents' mean and deviation are
  folded into the 1x1 convolutions at the bottleneck.
* `sdxl` and `pix2pix`: UNet 64/96/96 with one layer a block, trained together with the text
  encoders on latents encoded beforehand, 20 a step. v-prediction, stratified timesteps, min-SNR
  weights (5), loss three times as high inside the subject; towers and stars (text to image) and
  changes of subject (edits) are drawn more often. Text is dropped to "" and to zeros (SDXL), or
  text to "" and the source picture to zeros (edits), so that guidance has something to guide from.
* all: Muon for inner matrices and convolutions, Adam for the rest, constant rate and then linear
  decay over the last 40 % (UNets: 33 %) of the steps, exponential moving average of the weights.

The numbers of steps are in `__main__.py`, what came out is in the model card beside the weights.
"""
