import { render } from 'preact'
import './style/base.css'
import './style/parts.css'
import './style/print.css'
import { App } from './app'
import { listen as keys } from './keys'
import { listen } from './route'
import { start as clock } from './state/clock'
import { start as live } from './state/live'
import { start as prefs } from './state/prefs'
import { recognise } from './state/session'
import { use } from './wire/codec'
import { tables } from './wire/contract'

use(tables)
prefs()
clock()
listen()
keys()
live()
void recognise()
render(<App />, document.getElementById('app')!)
