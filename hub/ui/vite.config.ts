import { defineConfig } from 'vite'

export default defineConfig({
  // Small files too are files of their own: the page loads nothing but what the hub serves, data: included.
  build: { outDir: 'dist/site', emptyOutDir: true, assetsInlineLimit: 0, target: 'es2022', cssTarget: ['chrome123', 'firefox120', 'safari17.5'], modulePreload: { polyfill: false } },
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
})
